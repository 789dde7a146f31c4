//! What the kernel says of the whole machine: numbers of procfs, each with a name.

use std::io;
use std::path::Path;

use super::procfs::TICK;
use super::read_text;
use crate::event::Kind;

/// A number and its name.
pub(crate) type Sample = (String, i64);

/// Reads the numbers of a kind that is sampled; `root` is `/`. Of files that the kernel lacks there are none.
pub(crate) fn read(kind: Kind, root: &Path, out: &mut Vec<Sample>) -> io::Result<()> {
    let text = |path: &str| match read_text(&root.join(path)) {
        // PSI can be switched off, and refuses to be read then.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(95) => Ok(String::new()),
        text => text,
    };
    match kind {
        Kind::SystemStat => {
            stat(&text("proc/stat")?, out);
            vmstat(&text("proc/vmstat")?, out);
        }
        Kind::Meminfo => meminfo(&text("proc/meminfo")?, out),
        Kind::Loadavg => loadavg(&text("proc/loadavg")?, out),
        Kind::Pressure => {
            for resource in ["cpu", "memory", "io", "irq"] {
                pressure(resource, &text(&format!("proc/pressure/{resource}"))?, out);
            }
        }
        Kind::NetDev => net_dev(&text("proc/net/dev")?, out),
        Kind::SchedStats => schedstat(&text("proc/schedstat")?, out),
        Kind::RecorderStat => recorder(&text("proc/self/stat")?, out),
        _ => {}
    }
    Ok(())
}

/// Names with their values, as far as both are there.
fn named<'a>(names: &[&str], prefix: &str, values: impl Iterator<Item = &'a str>, out: &mut Vec<Sample>) {
    let values = values.map(str::parse::<i64>);
    let known = names.iter().zip(values).filter_map(|(name, value)| Some((name, value.ok()?)));
    out.extend(known.map(|(name, value)| (format!("{prefix}{name}"), value)));
}

/// `show_stat()` in `fs/proc/stat.c`.
fn stat(text: &str, out: &mut Vec<Sample>) {
    const TIMES: [&str; 10] =
        ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some(cpu) if cpu.starts_with("cpu") => named(&TIMES, &format!("{cpu}."), words, out),
            // The first number is the sum of those that follow.
            Some(name @ ("intr" | "ctxt" | "processes" | "procs_running" | "procs_blocked" | "softirq")) => {
                named(&[name], "", words, out);
            }
            _ => {}
        }
    }
}

/// `vmstat_show()` in `mm/vmstat.c`: of more than a hundred numbers, those that tell that memory was short.
fn vmstat(text: &str, out: &mut Vec<Sample>) {
    for line in text.lines() {
        if let Some((name @ ("pgfault" | "pgmajfault" | "pswpin" | "pswpout" | "oom_kill"), value)) =
            line.split_once(' ')
        {
            named(&[name], "", value.split_ascii_whitespace(), out);
        }
    }
}

fn meminfo(text: &str, out: &mut Vec<Sample>) {
    for (name, rest) in text.lines().filter_map(|line| line.split_once(':')) {
        named(&[name], "", rest.split_ascii_whitespace(), out);
    }
}

/// `loadavg_proc_show()` in `fs/proc/loadavg.c`: three loads with two digits behind the point, and runnable/all tasks.
fn loadavg(text: &str, out: &mut Vec<Sample>) {
    let mut words = text.split_ascii_whitespace();
    for name in ["load1", "load5", "load15"] {
        let hundredths = words.next().and_then(|word| word.replacen('.', "", 1).parse().ok());
        out.extend(hundredths.map(|value| (name.to_owned(), value)));
    }
    named(&["runnable", "tasks"], "", words.next().into_iter().flat_map(|word| word.split('/')), out);
}

/// `psi_show()` in `kernel/sched/psi.c`.
fn pressure(resource: &str, text: &str, out: &mut Vec<Sample>) {
    for line in text.lines() {
        let how = line.split_ascii_whitespace().next().unwrap_or_default();
        let total = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="));
        named(&[how], &format!("{resource}."), total.into_iter(), out);
    }
}

/// `dev_seq_printf_stats()` in `net/core/net-procfs.c`.
fn net_dev(text: &str, out: &mut Vec<Sample>) {
    const RECEIVED: [&str; 4] = ["rx_bytes", "rx_packets", "rx_errors", "rx_dropped"];
    const SENT: [&str; 4] = ["tx_bytes", "tx_packets", "tx_errors", "tx_dropped"];
    // Two lines of headings have no colon behind a name.
    for (device, rest) in text.lines().skip(2).filter_map(|line| line.split_once(':')) {
        let prefix = format!("{}.", device.trim());
        let words = || rest.split_ascii_whitespace();
        named(&RECEIVED, &prefix, words(), out);
        named(&SENT, &prefix, words().skip(8), out);
    }
}

/// `show_schedstat()` in `kernel/sched/stats.c`: the last three numbers of a CPU's line.
fn schedstat(text: &str, out: &mut Vec<Sample>) {
    for line in text.lines().filter(|line| line.starts_with("cpu")) {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        if let [cpu, .., running, waiting, slices] = words[..] {
            let names = ["running_ns", "waiting_ns", "timeslices"];
            named(&names, &format!("{cpu}."), [running, waiting, slices].into_iter(), out);
        }
    }
}

/// `do_task_stat()` in `fs/proc/array.c`: the 14th and 15th field, and the 24th.
fn recorder(text: &str, out: &mut Vec<Sample>) {
    // The name may hold anything, but nothing behind it holds a parenthesis.
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<i64>().ok());
    let page = rustix::param::page_size() as i64;
    let all = [
        ("user_ns", field(14), TICK.0 as i64),
        ("system_ns", field(15), TICK.0 as i64),
        ("resident_bytes", field(24), page),
    ];
    let known = all.into_iter().filter_map(|(name, value, unit)| Some((name.to_owned(), value?.saturating_mul(unit))));
    out.extend(known);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::write;

    fn all(kind: Kind, file: &str, text: &str) -> Vec<(String, i64)> {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), file, text);
        let mut out = Vec::new();
        read(kind, root.path(), &mut out).unwrap();
        out
    }

    fn some(list: &[Sample]) -> Vec<(&str, i64)> {
        list.iter().map(|(name, value)| (name.as_str(), *value)).collect()
    }

    #[test]
    fn numbers_have_the_names_that_the_kernel_s_documents_give_them() {
        let stat = "cpu  10 1 5 90 2 0 3 0 0 0\ncpu7 4 0 1\nintr 77 3 4\nctxt 123\nbtime 5\nprocs_running 2\n";
        let found = all(Kind::SystemStat, "proc/stat", stat);
        assert_eq!(some(&found)[..3], [("cpu.user", 10), ("cpu.nice", 1), ("cpu.system", 5)]);
        assert_eq!(
            some(&found)[10..],
            [("cpu7.user", 4), ("cpu7.nice", 0), ("cpu7.system", 1), ("intr", 77), ("ctxt", 123), ("procs_running", 2)]
        );
        let vmstat = "nr_free_pages 5\npswpin 1\npgfault 77\npgmajfault 3\noom_kill 0\npgfault_odd 4\n";
        let found = all(Kind::SystemStat, "proc/vmstat", vmstat);
        assert_eq!(some(&found), [("pswpin", 1), ("pgfault", 77), ("pgmajfault", 3), ("oom_kill", 0)]);
        let found = all(Kind::Meminfo, "proc/meminfo", "MemTotal:  100 kB\nHugePages_Total:  3\nodd\n");
        assert_eq!(some(&found), [("MemTotal", 100), ("HugePages_Total", 3)]);
        let found = all(Kind::Loadavg, "proc/loadavg", "0.05 1.20 13.00 2/345 999\n");
        assert_eq!(some(&found), [("load1", 5), ("load5", 120), ("load15", 1300), ("runnable", 2), ("tasks", 345)]);
        let psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(some(&all(Kind::Pressure, "proc/pressure/io", psi)), [("io.some", 42), ("io.full", 7)]);
        let dev = "Inter-| Receive\n face |bytes\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        let found = all(Kind::NetDev, "proc/net/dev", dev);
        assert_eq!(some(&found)[..2], [("eth0.rx_bytes", 1), ("eth0.rx_packets", 2)]);
        assert_eq!(some(&found)[4..6], [("eth0.tx_bytes", 5), ("eth0.tx_packets", 6)]);
        let found = all(Kind::SchedStats, "proc/schedstat", "version 17\ncpu0 0 0 0 0 0 0 11 22 33\ndomain0 SMT 3\n");
        assert_eq!(some(&found), [("cpu0.running_ns", 11), ("cpu0.waiting_ns", 22), ("cpu0.timeslices", 33)]);
    }

    #[test]
    fn a_name_with_a_parenthesis_does_not_shift_the_recorder_s_numbers() {
        let stat = format!("7 (a) b) S {} 3 4 0 0 20 0 1 0 99 1000 5 0", "0 ".repeat(10).trim());
        let found = all(Kind::RecorderStat, "proc/self/stat", &stat);
        let page = rustix::param::page_size() as i64;
        assert_eq!(some(&found), [("user_ns", 30_000_000), ("system_ns", 40_000_000), ("resident_bytes", 5 * page)]);
    }

    #[test]
    fn what_is_not_there_has_no_numbers() {
        assert_eq!(all(Kind::Pressure, "proc/other", ""), []);
        assert_eq!(all(Kind::SystemStat, "proc/stat", "\u{0}\ncpu\ncpu0 x y\nctxt\n"), []);
    }
}
