//! What the explained threads do, with known answers.
//!
//! Every thread has a name that says nothing. Each workload has a culprit, and somebody innocent who uses more of the
//! CPUs or is woken more often.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::common::threads::{Threads, WORKLOAD, burn, cpus, monotonic_ns, ms, nice, spin, tell, us};

/// The subject begins so much later than the others, so that all of them are at work then.
const LEAD: Duration = ms(200);
/// So long is the window that is explained.
const WINDOW: Duration = ms(1000);
/// So long do the others work: until the window is over, and its last round.
const WORK: Duration = ms(1600);
/// The weight of hogs and decoys: nine times the usual one.
const HEAVY: i32 = -10;
/// The weight of who is to have the CPU whenever he wants it: nine times that.
const FIRST: i32 = -20;

/// How many bytes of a disk are read.
pub const FILE_BYTES: u64 = 32 << 20;
/// At once.
const BLOCK: usize = 64 << 10;
/// Addresses in a network of its own.
const SENDER: &str = "10.8.8.8";
const NOBODY: &str = "10.9.9.9";
/// What O_DIRECT asks of buffers.
const ALIGNED: usize = 4096;

/// Is the workload that the environment names, if it names one; with the names of its threads, and what else it needs.
pub fn main() {
    let Ok(told) = std::env::var(WORKLOAD) else { return };
    let words: Vec<&str> = told.split(' ').collect();
    let (first, last) = (cpus()[0], *cpus().last().unwrap());
    let mut threads = Threads::default();
    let add = &mut threads;
    match words[..] {
        ["hog", subject, hog, decoy] => hog_on_its_cpu(add, [subject, hog, decoy], first, last),
        ["lock", subject, holder, hog, decoy] => lock(add, [subject, holder, hog, decoy], first, last),
        ["chain", subject, b, a, hog, decoy] => chain(add, [subject, b, a, hog, decoy], first, last),
        ["quota", subject, decoy] => quota(add, [subject, decoy], last),
        ["disk", subject, decoy, path] => disk(add, [subject, decoy], Path::new(path), last),
        ["softirq", subject, sender, decoy, filler] => softirq(add, [subject, sender, decoy, filler], first, last),
        ["several"] => several(add, first, last),
        ["storm", subject, hog] => storm(add, [subject, hog], first, last),
        ref other => panic!("no workload is called {other:?}"),
    }
    // Of a cgroup with a quota, it is its own weight that counts; and recorders of small rings need the CPUs too.
    if ["hog", "lock", "chain", "disk", "softirq"].contains(&words[0]) {
        outweigh_other_sessions();
    }
    threads.run();
}

/// What else the machine does, a build for instance, is not to be the answer: where sessions are scheduled as groups,
/// this process becomes a session of eighty times the usual weight.
fn outweigh_other_sessions() {
    if rustix::process::setsid().is_ok() {
        // Where there are no such groups, threads compete each by itself.
        let _ = fs::write("/proc/self/autogroup", FIRST.to_string());
    }
}

/// Repeats that until the work of all is over.
fn for_long(mut round: impl FnMut()) {
    let begun = Instant::now();
    while begun.elapsed() < WORK {
        round();
    }
}

/// Repeats what the subject does, and tells the window that it took.
fn explained(mut round: impl FnMut()) {
    thread::sleep(LEAD);
    let from = monotonic_ns();
    let begun = Instant::now();
    while begun.elapsed() < WINDOW {
        round();
    }
    tell(&format!("window {from} {}", monotonic_ns()));
}

/// Uses less of the CPUs than a decoy, which spins all the time.
fn busy_most_of_the_time() {
    nice(HEAVY);
    for_long(|| {
        burn(ms(20));
        thread::sleep(ms(4));
    });
}

/// A thread that has to run every few milliseconds, and a hog on its CPU; another hog has the other CPU to itself.
fn hog_on_its_cpu(threads: &mut Threads, [subject, hog, decoy]: [&str; 3], first: usize, last: usize) {
    threads.pinned(hog, last, || {
        nice(HEAVY);
        spin(WORK);
    });
    threads.pinned(decoy, first, || {
        nice(HEAVY);
        spin(WORK);
    });
    threads.pinned(subject, last, || {
        nice(HEAVY);
        explained(|| {
            burn(ms(2));
            thread::sleep(ms(1));
        });
    });
}

/// A thread that wants a lock, whose holder shares a CPU with a hog. A decoy has the first one's CPU nearly all the
/// time.
fn lock(threads: &mut Threads, [subject, holder, hog, decoy]: [&str; 4], first: usize, last: usize) {
    let lock = Arc::new(Mutex::new(()));
    let held = lock.clone();
    threads.pinned(holder, last, move || {
        for_long(|| {
            let guard = held.lock().unwrap();
            burn(ms(3));
            drop(guard);
            thread::sleep(us(500));
        });
    });
    threads.pinned(hog, last, busy_most_of_the_time);
    threads.pinned(decoy, first, || {
        nice(HEAVY);
        spin(WORK);
    });
    threads.pinned(subject, first, move || {
        nice(FIRST);
        explained(|| {
            drop(lock.lock().unwrap());
            thread::sleep(us(200));
        });
    });
}

/// A wakes B, and B wakes C, who is explained and asks A for more. B shares a CPU with a hog, A and C theirs with a
/// decoy.
fn chain(threads: &mut Threads, [c, b, a, hog, decoy]: [&str; 5], first: usize, last: usize) {
    let (mut a_reads, mut c_asks) = std::io::pipe().unwrap();
    let (mut b_reads, mut a_writes) = std::io::pipe().unwrap();
    let (mut c_reads, mut b_writes) = std::io::pipe().unwrap();
    threads.pinned(a, first, move || {
        nice(FIRST);
        while a_reads.read(&mut [0]).unwrap() > 0 {
            thread::sleep(us(300));
            a_writes.write_all(&[0]).unwrap();
        }
    });
    threads.pinned(b, last, move || {
        while b_reads.read(&mut [0]).unwrap() > 0 {
            burn(us(200));
            b_writes.write_all(&[0]).unwrap();
        }
    });
    threads.pinned(hog, last, busy_most_of_the_time);
    threads.pinned(decoy, first, || {
        nice(HEAVY);
        spin(WORK);
    });
    threads.pinned(c, first, move || {
        nice(FIRST);
        explained(|| {
            c_asks.write_all(&[0]).unwrap();
            c_reads.read_exact(&mut [0]).unwrap();
        });
    });
}

/// A thread that always wants to run, and a decoy on its CPU. The test gives the first a quota.
fn quota(threads: &mut Threads, [subject, decoy]: [&str; 2], last: usize) {
    threads.pinned(decoy, last, || spin(WORK));
    threads.pinned(subject, last, || explained(|| spin(us(100))));
}

/// A file that is read without the page cache.
pub fn open_direct(path: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path)
}

/// Reads a block of it.
pub fn read_direct(file: &File, block: u64) -> std::io::Result<()> {
    let mut memory = vec![0; BLOCK + ALIGNED];
    let aligned = memory.as_ptr().align_offset(ALIGNED);
    file.read_exact_at(&mut memory[aligned..aligned + BLOCK], block * BLOCK as u64)
}

/// A thread that reads from a disk, and a decoy that has its CPU meanwhile.
fn disk(threads: &mut Threads, [subject, decoy]: [&str; 2], path: &Path, last: usize) {
    let file = open_direct(path).unwrap();
    threads.pinned(decoy, last, || spin(WORK));
    threads.pinned(subject, last, move || {
        nice(FIRST);
        let mut block = 0;
        explained(|| {
            // Not one after the other: nothing reads ahead.
            block = (block + 97) % (FILE_BYTES / BLOCK as u64);
            read_direct(&file, block).unwrap();
        });
    });
}

/// What becomes of a network of its own before a workload is there. It leads from a virtual link's one end to the
/// other, and the route leads from there to the first again. So each datagram is forwarded until it has no hops left,
/// all of that in softirqs of the CPU to which the ends steer what they receive.
pub fn network() -> String {
    let last = *cpus().last().unwrap();
    // A list of 32 bits each, the highest first.
    let mask = format!("{:x}{}", 1_u32 << (last % 32), ",00000000".repeat(last / 32));
    format!(
        "ip link set lo up
        mount -t sysfs none /sys
        ip link add v0 type veth peer name v1 address 02:00:00:00:00:01
        ip address add {SENDER}/32 dev v0
        ip link set v0 up
        ip link set v1 up
        ip route add {NOBODY}/32 dev v0
        ip neighbour add {NOBODY} lladdr 02:00:00:00:00:01 dev v0
        echo 1 >/proc/sys/net/ipv4/ip_forward
        for dev in all v0 v1; do
            echo 1 >/proc/sys/net/ipv4/conf/$dev/accept_local
            echo 0 >/proc/sys/net/ipv4/conf/$dev/rp_filter
            echo 0 >/proc/sys/net/ipv4/conf/$dev/send_redirects
        done
        for dev in v0 v1; do echo {mask} >/sys/class/net/$dev/queues/rx-0/rps_cpus; done"
    )
}

/// A thread that wants to run, and datagrams that a sender on the other CPU makes this CPU forward. A decoy is woken
/// here more often than anybody.
fn softirq(threads: &mut Threads, [subject, sender, decoy, filler]: [&str; 4], first: usize, last: usize) {
    threads.pinned(sender, first, move || {
        nice(HEAVY);
        let socket = UdpSocket::bind((SENDER, 0)).unwrap();
        socket.set_ttl(64).unwrap();
        for_long(|| {
            // What does not fit any more is dropped, and the network tells of what has no hops left.
            let _ = socket.send_to(&[0; 64], (NOBODY, 9));
            spin(us(150));
        });
    });
    // Has the CPU when nobody else wants it. On some sandboxed machines the kernel shows no event while a thread of
    // process 1 is current, and that one would come whenever the CPU is idle.
    threads.pinned(filler, last, || {
        nice(10);
        spin(WORK);
    });
    threads.pinned(decoy, last, || {
        nice(HEAVY);
        for_long(|| {
            burn(us(5));
            thread::sleep(us(200));
        });
    });
    threads.pinned(subject, last, || {
        nice(HEAVY);
        explained(|| {
            burn(ms(3));
            thread::sleep(us(500));
        });
    });
}

/// Threads that wait for CPUs, for each other, for locks and for timers.
fn several(threads: &mut Threads, first: usize, last: usize) {
    for (hog, cpu) in [("hog-a", first), ("hog-b", last)] {
        threads.pinned(hog, cpu, || spin(ms(800)));
    }
    threads.pinned("worker", last, || {
        for _ in 0..40 {
            spin(ms(3));
            thread::sleep(ms(5));
        }
    });
    threads.pinned("sleeper", last, || {
        for _ in 0..150 {
            spin(us(700));
            thread::sleep(us(1500));
        }
    });
    let lock = Arc::new(Mutex::new(()));
    for (name, cpu) in [("lock-a", first), ("lock-b", last)] {
        let lock = lock.clone();
        threads.pinned(name, cpu, move || {
            for _ in 0..60 {
                let guard = lock.lock().unwrap();
                spin(ms(1));
                drop(guard);
                thread::sleep(ms(1));
            }
        });
    }
    threads.ping_pong(["far-a", "far-b"], Some([first, last]), 100, us(200));
}

/// A thread that is woken again and again beside a hog; meanwhile others wake each other as fast as they can, for a
/// while.
fn storm(threads: &mut Threads, [subject, hog]: [&str; 2], first: usize, last: usize) {
    threads.pinned(hog, last, || spin(WORK));
    for (pair, cpu) in [(["storm-a", "storm-b"], last), (["storm-c", "storm-d"], first)] {
        let (mut ping_read, mut ping_write) = std::io::pipe().unwrap();
        let (mut pong_read, mut pong_write) = std::io::pipe().unwrap();
        threads.pinned(pair[0], cpu, move || {
            thread::sleep(LEAD * 2);
            let begun = Instant::now();
            while begun.elapsed() < WINDOW / 2 {
                ping_write.write_all(&[0]).unwrap();
                pong_read.read_exact(&mut [0]).unwrap();
            }
        });
        threads.pinned(pair[1], cpu, move || {
            while ping_read.read(&mut [0]).unwrap() > 0 {
                pong_write.write_all(&[0]).unwrap();
            }
        });
    }
    threads.pinned(subject, last, || {
        nice(FIRST);
        explained(|| {
            spin(us(300));
            thread::sleep(us(500));
        });
    });
}
