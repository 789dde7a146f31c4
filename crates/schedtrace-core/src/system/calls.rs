//! Names of system calls and errors: numbers of Linux, whatever the machine that reads them.

use syscalls::{Errno, aarch64, x86_64};

/// What a system call is called, by its number on a machine of this kind (`uname -m`, [`Host::machine`](super::Host)).
/// None where the machine or the number is not known: `x86_64` and `aarch64` are.
///
/// ```
/// use schedtrace_core::system::syscall_name;
/// assert_eq!(syscall_name("x86_64", 257), Some("openat"));
/// assert_eq!(syscall_name("aarch64", 56), Some("openat"));
/// assert_eq!(syscall_name("riscv64", 56), None);
/// ```
#[must_use]
pub fn syscall_name(machine: &str, number: u32) -> Option<&'static str> {
    let number = usize::try_from(number).ok()?;
    match machine {
        "x86_64" => x86_64::Sysno::new(number).map(|call| call.name()),
        "aarch64" => aarch64::Sysno::new(number).map(|call| call.name()),
        _ => None,
    }
}

/// The number of a system call on a machine of this kind.
///
/// ```
/// use schedtrace_core::system::syscall_number;
/// assert_eq!(syscall_number("x86_64", "openat"), Some(257));
/// assert_eq!(syscall_number("x86_64", "no_such_call"), None);
/// ```
#[must_use]
pub fn syscall_number(machine: &str, name: &str) -> Option<u32> {
    // Where the numbers of the one end, and those of the other: tables grow at the end.
    (0..1_024).find(|&number| syscall_name(machine, number) == Some(name))
}

/// What an error is called (`errno(3)`). The machines that [`syscall_name`] knows have the same numbers.
///
/// ```
/// use schedtrace_core::system::errno_name;
/// assert_eq!(errno_name(2), Some("ENOENT"));
/// assert_eq!(errno_name(0), None);
/// ```
#[must_use]
pub fn errno_name(errno: u32) -> Option<&'static str> {
    Errno::new(i32::try_from(errno).ok()?).name()
}

/// What an error means, in a few words.
///
/// ```
/// use schedtrace_core::system::errno_text;
/// assert_eq!(errno_text(13), Some("Permission denied"));
/// ```
#[must_use]
pub fn errno_text(errno: u32) -> Option<&'static str> {
    Errno::new(i32::try_from(errno).ok()?).description()
}

/// The number of an error.
///
/// ```
/// use schedtrace_core::system::errno_number;
/// assert_eq!(errno_number("EPERM"), Some(1));
/// assert_eq!(errno_number("EPERN"), None);
/// ```
#[must_use]
pub fn errno_number(name: &str) -> Option<u32> {
    (1..512).find(|&errno| errno_name(errno) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name_or_none() {
        for machine in ["x86_64", "aarch64"] {
            let names = (0..1_024).filter_map(|number| Some((number, syscall_name(machine, number)?)));
            let names: Vec<_> = names.collect();
            assert!(names.len() > 300, "{machine}");
            assert!(names.iter().all(|&(number, name)| syscall_number(machine, name) == Some(number)), "{machine}");
        }
        assert_eq!((syscall_name("x86_64", u32::MAX), syscall_name("", 0)), (None, None));
        assert_eq!(
            [1, 11, 22, 38, 110].map(errno_name).map(Option::unwrap),
            ["EPERM", "EAGAIN", "EINVAL", "ENOSYS", "ETIMEDOUT"]
        );
        assert_eq!((errno_name(u32::MAX), errno_text(0), errno_number("EAGAIN")), (None, None, Some(11)));
    }

    #[test]
    fn numbers_are_those_of_this_kernel() {
        // What the C library calls the same.
        let error = std::fs::read("/no/such/file").unwrap_err().raw_os_error().unwrap();
        assert_eq!(errno_name(error as u32), Some("ENOENT"));
        assert!(std::io::Error::from_raw_os_error(13).to_string().starts_with(errno_text(13).unwrap()));
    }
}
