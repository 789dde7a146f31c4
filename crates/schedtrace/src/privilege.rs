//! Giving up, once the programs are attached, what only attaching needs. See `credentials(7)` and `capabilities(7)`.
//!
//! Ids and capabilities belong to threads, and a thread that is started inherits them; so all of this happens while
//! there is only one.

use std::ffi::{CString, OsString};
use std::path::PathBuf;

use rustix::process::{Gid, Uid, geteuid, getgid, getgroups, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use schedtrace_core::Error;

/// Whom the recorder becomes, and who owns its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// Where this user's own files are, as the user database says.
    home: Option<PathBuf>,
}

/// Who was named by `--user`, or else who called root's power up: with `sudo`, `pkexec` or `doas`. Nobody else where
/// this process is not root, or was not called up.
pub(crate) fn invoking_user(named: Option<&str>) -> Result<Option<User>, Error> {
    let is_root = getuid().is_root() && geteuid().is_root();
    match named {
        Some(name) if is_root => User::find(name).map(Some),
        Some(name) => {
            let user = User::find(name)?;
            if user.uid == getuid() {
                return Ok(None);
            }
            Err(Error::Invalid(format!("cannot become {name}: only root can; leave --user out, or run with sudo")))
        }
        None if is_root => {
            let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
            let by = variable("SUDO_UID").or_else(|| variable("PKEXEC_UID")).or_else(|| variable("DOAS_USER"));
            let user = by.map(|who| User::find(&who)).transpose()?;
            Ok(user.filter(|user| !user.uid.is_root()))
        }
        None => Ok(None),
    }
}

impl User {
    /// By name, or by number; a number needs no entry in the user database.
    fn find(who: &str) -> Result<Self, Error> {
        let failed = |error: nix::errno::Errno| Error::Invalid(format!("cannot look up the user {who}: {error}"));
        let number = who.parse().ok();
        let found = match number {
            Some(uid) => nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)),
            None => nix::unistd::User::from_name(who),
        };
        match (found.map_err(failed)?, number) {
            (Some(user), _) => {
                let name = CString::new(user.name.as_str()).map_err(|_| failed(nix::errno::Errno::EINVAL))?;
                let groups = nix::unistd::getgrouplist(&name, user.gid).map_err(failed)?;
                Ok(Self {
                    name: user.name,
                    uid: Uid::from_raw(user.uid.as_raw()),
                    gid: Gid::from_raw(user.gid.as_raw()),
                    groups: groups.into_iter().map(|group| Gid::from_raw(group.as_raw())).collect(),
                    home: Some(user.dir),
                })
            }
            // The highest number stands for "no change".
            (None, Some(uid)) if uid != u32::MAX => {
                let gid = Gid::from_raw(uid);
                Ok(Self { name: who.to_owned(), uid: Uid::from_raw(uid), gid, groups: vec![gid], home: None })
            }
            _ => Err(Error::Invalid(format!("no user is called {who}: see `getent passwd`"))),
        }
    }

    /// A variable of the environment, as the user would have it: not the home of who called the power up.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        if name == "HOME" { self.home.clone().map(Into::into) } else { std::env::var_os(name) }
    }

    /// Does something with what the user may do, and no more.
    pub(crate) fn act<T>(&self, act: impl FnOnce() -> T) -> Result<T, Error> {
        let (uid, gid, groups) = (geteuid(), getgid(), getgroups().map_err(cannot_become(&self.name))?);
        let become_user = || {
            set_thread_groups(&self.groups)?;
            set_thread_res_gid(None, self.gid, None)?;
            // The kernel takes the effective capabilities away with this, and gives them back with the return.
            set_thread_res_uid(None, self.uid, None)
        };
        let done = become_user().map(|()| act());
        let back = || {
            set_thread_res_uid(None, uid, None)?;
            set_thread_res_gid(None, gid, None)?;
            set_thread_groups(&groups)
        };
        back().map_err(cannot_become("root again"))?;
        done.map_err(cannot_become(&self.name))
    }
}

fn cannot_become(who: &str) -> impl FnOnce(rustix::io::Errno) -> Error {
    let who = who.to_owned();
    move |error| Error::Invalid(format!("cannot become {who}: {error}; name somebody else with --user"))
}

/// Becomes the user for good, if there is one, and gives all capabilities up, of every set.
pub(crate) fn drop_all(user: Option<&User>) -> Result<(), Error> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(Error::Invalid(format!("cannot give up privileges of {threads} threads: a bug in schedtrace")));
    }
    if let Some(user) = user {
        let become_user = || {
            set_thread_groups(&user.groups)?;
            set_thread_res_gid(user.gid, user.gid, user.gid)?;
            set_thread_res_uid(user.uid, user.uid, user.uid)
        };
        become_user().map_err(cannot_become(&user.name))?;
    }
    // The ambient ones go with the permitted ones.
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(|error| Error::Invalid(format!("cannot give up capabilities: {error}")))
}

/// What it takes to see where any task is in the kernel: to open the file of another user's task, to look into that task,
/// and to be told.
const FOR_STACKS: CapabilitySet =
    CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::SYS_PTRACE).union(CapabilitySet::SYS_ADMIN);

/// Whether this process may see where any task is in the kernel.
pub(crate) fn may_see_stacks() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(FOR_STACKS))
}

/// Gives up all capabilities but those that it takes to see where tasks are in the kernel.
pub(crate) fn keep_for_stacks() -> Result<(), Error> {
    let kept = CapabilitySets { effective: FOR_STACKS, permitted: FOR_STACKS, inheritable: CapabilitySet::empty() };
    set_capabilities(None, kept)
        .map_err(|error| Error::Invalid(format!("cannot see where tasks are in the kernel: {error}; run with sudo")))
}

/// Whether what was given up would come back if this program were started again by whom it is now: by root, or from a file
/// that has capabilities of its own.
pub(crate) fn comes_back() -> bool {
    let has_own = || {
        let program = std::env::current_exe().ok()?;
        // Whether there are any: what they are, the kernel decides.
        rustix::fs::getxattr(program, "security.capability", &mut [0_u8; 64]).ok()
    };
    geteuid().is_root() || has_own().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = User::find("root").unwrap();
        assert_eq!((root.name.as_str(), root.uid.as_raw()), ("root", 0));
        assert_eq!(User::find("0").unwrap(), root);
        let unnamed = User::find("3999999999").unwrap();
        assert_eq!(
            (unnamed.uid.as_raw(), unnamed.gid.as_raw(), unnamed.groups.len()),
            (3_999_999_999, 3_999_999_999, 1)
        );
        for nobody in ["no such user", "", "-1", "4294967295", "\u{0}"] {
            assert!(User::find(nobody).is_err(), "{nobody:?}");
        }
    }
}
