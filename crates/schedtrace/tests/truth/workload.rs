//! What the measured processes do.

use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::thread::sched_yield;

use crate::common::procfs::Reading;
use crate::common::threads::{Threads, WORKLOAD, command, cpus, monotonic_ns, ms, pin, spin, tell, tid, us};

/// Is the workload that the environment names, if it names one.
pub fn main() {
    let Ok(name) = std::env::var(WORKLOAD) else { return };
    let cpus = cpus();
    let mut threads = Threads::default();
    match name.as_str() {
        "pinned" => pinned(&mut threads, *cpus.last().unwrap()),
        "unpinned" => unpinned(&mut threads, cpus.len()),
        "blocking" => blocking(&mut threads, &cpus),
        "sleeping" => sleeping(&mut threads, &cpus),
        "yielding" => yielding(&mut threads, *cpus.last().unwrap()),
        "forking" => forking(&mut threads),
        "renaming" => renaming(&mut threads),
        "exec" => exec_by_a_thread(&mut threads),
        "executed" => return executed(),
        "exiting" => exiting(&mut threads),
        "awake" => woken_while_running(&mut threads, &cpus),
        "mixed" => mixed(&mut threads, &cpus),
        other => panic!("no workload is called {other}"),
    }
    threads.run();
}

/// Two hogs and a thread that sleeps now and then on one CPU: each waits for milliseconds.
fn pinned(threads: &mut Threads, cpu: usize) {
    for name in ["hog-a", "hog-b"] {
        threads.pinned(name, cpu, || spin(ms(400)));
    }
    threads.pinned("worker", cpu, || {
        for _ in 0..25 {
            spin(ms(3));
            thread::sleep(ms(5));
        }
    });
}

/// More hogs than CPUs, and threads that sleep now and then; they go where the kernel puts them.
fn unpinned(threads: &mut Threads, cpus: usize) {
    for n in 0..=cpus {
        threads.work(&format!("hog-{n}"), || spin(ms(400)));
    }
    for name in ["sleeper-a", "sleeper-b"] {
        threads.work(name, || {
            for _ in 0..40 {
                spin(ms(2));
                thread::sleep(ms(3));
            }
        });
    }
}

/// Threads that wake each other: two on one CPU with a hog, two on different CPUs, two anywhere.
fn blocking(threads: &mut Threads, cpus: &[usize]) {
    let (first, last) = (cpus[0], *cpus.last().unwrap());
    threads.ping_pong(["near-a", "near-b"], Some([last, last]), 300, us(300));
    // On both CPUs: to wake an idle one may take longer than all that is measured here.
    threads.pinned("hog-a", first, || spin(ms(400)));
    threads.pinned("hog-b", last, || spin(ms(400)));
    threads.ping_pong(["far-a", "far-b"], Some([first, last]), 300, us(200));
    threads.ping_pong(["free-a", "free-b"], None, 300, us(200));
}

/// Threads that a timer wakes, with hogs on every CPU.
fn sleeping(threads: &mut Threads, cpus: &[usize]) {
    for &cpu in cpus {
        threads.pinned(&format!("hog-{cpu}"), cpu, || spin(ms(400)));
        threads.pinned(&format!("sleeper-{cpu}"), cpu, || {
            for _ in 0..100 {
                spin(us(700));
                thread::sleep(us(1500));
            }
        });
    }
    threads.work("sleeper", || {
        for _ in 0..100 {
            spin(us(700));
            thread::sleep(us(1500));
        }
    });
}

/// Two threads on one CPU that give it to each other.
fn yielding(threads: &mut Threads, cpu: usize) {
    for name in ["yield-a", "yield-b"] {
        threads.pinned(name, cpu, || {
            for _ in 0..4000 {
                spin(us(40));
                sched_yield();
            }
        });
    }
}

/// A thread that creates many processes and waits for none of them, and one that competes with them.
fn forking(threads: &mut Threads) {
    threads.work("forker", || {
        let mut children: Vec<Child> = Vec::new();
        for n in 0..24 {
            // Some that live for a moment, and some that work.
            let script = if n % 2 == 0 { "exit" } else { "i=0; while [ $i -lt 9000 ]; do i=$((i+1)); done" };
            children.push(Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap());
        }
        children.iter().for_each(|child| tell(&format!("child {}", child.id())));
        // Nobody waits for them: what the kernel counted stays readable.
        std::mem::forget(children);
    });
    threads.work("hog", || spin(ms(250)));
}

/// A thread that is called differently after each sleep.
fn renaming(threads: &mut Threads) {
    threads.work("name-0", || {
        for n in 1..=40 {
            fs::write("/proc/thread-self/comm", format!("name-{n}")).unwrap();
            spin(ms(1));
            thread::sleep(ms(1));
        }
    });
}

/// A thread that is not the leader, and executes a program.
fn exec_by_a_thread(threads: &mut Threads) {
    threads.work("executor", || {
        for _ in 0..20 {
            spin(ms(2));
            thread::sleep(ms(1));
        }
        panic!("exec came back: {}", command("executed").exec());
    });
}

/// The program that a thread executed: works on, and waits for the end.
fn executed() {
    for _ in 0..20 {
        spin(ms(2));
        thread::sleep(ms(1));
    }
    tell("executed executor");
    let _ = std::io::stdin().lock().read(&mut [0]);
}

/// Threads that end. Such a thread's figures go with it, so it tells them itself, after its last sleep.
fn exiting(threads: &mut Threads) {
    for n in 0..4 {
        let name = format!("exiting-{n}");
        let of = name.clone();
        threads.add(&name, None, true, move || {
            for _ in 0..20 {
                spin(ms(2));
                thread::sleep(ms(1));
            }
            tell_figures(&of);
        });
    }
}

/// Tells the calling thread's own figures, and a moment at which they held. Its time on CPUs is that of its last
/// switch-in, so it has just slept.
fn tell_figures(name: &str) {
    let tid = tid();
    // Opened once before: what is in the cache now is read without sleeping.
    let _ = Reading::of(tid);
    loop {
        thread::sleep(ms(1));
        let before = Reading::of(tid).unwrap();
        let at = monotonic_ns();
        if Reading::of(tid) == Some(before) {
            let Reading { cpu_ns, wait_ns, runs, voluntary, involuntary } = before;
            tell(&format!("figures {name} {at} {cpu_ns} {wait_ns} {runs} {voluntary} {involuntary}"));
            return tell(&format!("done {name}"));
        }
    }
}

/// A thread that reads what comes, and is often about to sleep when the next byte comes from another CPU. It shares its
/// CPU with a hog, so that a wait that is none would be long.
fn woken_while_running(threads: &mut Threads, cpus: &[usize]) {
    let (first, last) = (cpus[0], *cpus.last().unwrap());
    let (mut read, mut write) = std::io::pipe().unwrap();
    threads.pinned("woken", last, move || {
        let mut bytes = [0; 64];
        let mut n = 0;
        while read.read(&mut bytes).unwrap() > 0 {
            n += 1;
            // So that it uses its slice up, and has to wait for the next one.
            spin(if n % 15 == 0 { ms(4) } else { ms(0) });
        }
    });
    threads.pinned("waker", first, move || {
        for n in 0..2000 {
            write.write_all(&[0]).unwrap();
            // Of many lengths, so that some of them end just when the reader goes to sleep.
            spin(Duration::from_nanos(n * 977 % 30_000));
        }
    });
    threads.pinned("hog", last, || spin(ms(400)));
}

/// A little of everything: interrupts, remote wakeups, migrations on wakeup, forks, new names, yields.
fn mixed(threads: &mut Threads, cpus: &[usize]) {
    let (first, last) = (cpus[0], *cpus.last().unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    threads.work("receiver", move || {
        (0..300).for_each(|_| assert_eq!(socket.recv(&mut [0]).unwrap(), 1));
    });
    threads.work("sender", move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..300 {
            thread::sleep(us(700));
            assert_eq!(socket.send_to(&[1], address).unwrap(), 1);
        }
    });
    threads.work("sleeper", || (0..300).for_each(|_| thread::sleep(us(300))));
    threads.ping_pong(["far-a", "far-b"], Some([first, last]), 1500, us(5));
    threads.ping_pong(["free-a", "free-b"], None, 1500, us(5));
    moved(threads, first, last);
    for name in ["yield-a", "yield-b"] {
        threads.pinned(name, last, || (0..1500).for_each(|_| sched_yield()));
    }
    threads.work("forker", || {
        (0..20).for_each(|_| assert!(Command::new("/bin/true").status().unwrap().success()));
    });
    threads.work("renamed", || {
        for n in 0..50 {
            fs::write("/proc/thread-self/comm", format!("renamed {n} to")).unwrap();
            thread::sleep(us(500));
        }
    });
}

/// A thread that is moved to another CPU while it sleeps, and then woken.
fn moved(threads: &mut Threads, first: usize, last: usize) {
    let (mut read, mut write) = std::io::pipe().unwrap();
    let rounds = 300_usize;
    threads.work("moved", move || {
        let mut byte = [0];
        (0..rounds).for_each(|_| read.read_exact(&mut byte).unwrap());
    });
    let moved = threads.tids["moved"];
    threads.work("mover", move || {
        for n in 0..rounds {
            thread::sleep(us(500));
            pin(Some(moved), if n % 2 == 0 { first } else { last });
            write.write_all(&[0]).unwrap();
        }
    });
}
