//! Lines for standard error, which nobody may read: whoever has something to say does not wait for it.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::answer::cleaned;

/// So many lines wait to be written.
const WAITING: usize = 64;
/// How often it is looked whether all is written.
const LOOK: Duration = Duration::from_millis(5);

/// Says lines on a thread of its own, which begins with the first of them.
#[derive(Debug, Default)]
pub(super) struct Teller {
    /// None if no thread could be started.
    lines: OnceLock<Option<SyncSender<String>>>,
    left: Arc<Left>,
}

/// What was not written.
#[derive(Debug, Default)]
struct Left {
    waiting: AtomicU64,
    dropped: AtomicU64,
}

impl Teller {
    /// Says a line, or counts that it could not.
    pub(super) fn say(&self, line: &str) {
        let line = format!("schedtrace-mcp: {}\n", cleaned(line, 500));
        let lines = self.lines.get_or_init(|| start(Arc::clone(&self.left), std::io::stderr()));
        self.left.waiting.fetch_add(1, Ordering::SeqCst);
        if lines.as_ref().is_none_or(|lines| lines.try_send(line).is_err()) {
            self.left.waiting.fetch_sub(1, Ordering::SeqCst);
            self.left.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until all is written, for so long at most.
    pub(super) fn flush(&self, most: Duration) {
        let begun = Instant::now();
        while self.left.waiting.load(Ordering::SeqCst) > 0 && begun.elapsed() < most {
            std::thread::sleep(LOOK);
        }
    }
}

/// The thread that writes lines; it ends when nobody can say any more.
fn start(left: Arc<Left>, mut to: impl Write + Send + 'static) -> Option<SyncSender<String>> {
    let (lines, written) = sync_channel::<String>(WAITING);
    let write = move || {
        for line in written {
            // If nobody can read it, so it is.
            let _ = to.write_all(line.as_bytes());
            let dropped = left.dropped.swap(0, Ordering::SeqCst);
            if dropped > 0 {
                let _ = writeln!(to, "schedtrace-mcp: {dropped} lines are missing here: nobody read them");
            }
            left.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    };
    std::thread::Builder::new().name("st-audit".into()).spawn(write).is_ok().then_some(lines)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Receiver;

    use super::*;

    /// Nobody reads it until the sender is gone.
    struct Unread(Receiver<()>, Arc<Mutex<String>>);

    impl Write for Unread {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_whoever_does_not_read() {
        let (read, unread) = sync_channel(0);
        let written = Arc::<Mutex<String>>::default();
        let teller = Teller::default();
        let to = Unread(unread, Arc::clone(&written));
        teller.lines.set(start(Arc::clone(&teller.left), to)).unwrap();
        let said = WAITING + 10;
        (0..said).for_each(|n| teller.say(&format!("line {n}\n\u{1b}")));
        teller.flush(Duration::from_millis(1));
        assert_eq!(*written.lock().unwrap(), "");
        drop(read);
        teller.flush(Duration::from_secs(60));
        let written = written.lock().unwrap().clone();
        let lines: Vec<&str> = written.lines().collect();
        assert!(lines[0].starts_with("schedtrace-mcp: line 0") && !written.contains('\u{1b}'), "{written}");
        let missing = lines.iter().find_map(|line| line.strip_suffix(" lines are missing here: nobody read them"));
        let missing: usize = missing.unwrap().trim_start_matches("schedtrace-mcp: ").parse().unwrap();
        assert_eq!(lines.len() - 1 + missing, said, "{written}");
    }
}
