//! Standard input and output, with bounds: requests are read only as fast as answers are taken.
//!
//! A client that asks and does not read would otherwise have all its answers wait in our memory. Here it finds its own
//! requests waiting, in the pipe, until it reads.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{Stdin, Stdout};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// So many messages may wait to be written before no more are read.
const MAX_UNREAD: usize = 64;
/// A request is no longer than that, in bytes.
const MAX_LINE: usize = 1 << 20;
/// How often it is looked whether a client that does not read is there at all.
const LOOK: Duration = Duration::from_millis(500);

/// The transport over standard input and output.
pub(crate) struct Stdio {
    inner: AsyncRwTransport<RoleServer, Stdin, Stdout>,
    unread: Arc<Unread>,
    /// Cancelled when the client will ask no more.
    gone: CancellationToken,
    /// Nothing more is to be read.
    stop: CancellationToken,
}

/// Messages that wait to be written.
#[derive(Default)]
struct Unread {
    messages: AtomicUsize,
    fewer: Notify,
}

/// One of them.
struct Waits(Arc<Unread>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.messages.fetch_sub(1, Ordering::Relaxed);
        self.0.fewer.notify_one();
    }
}

impl Stdio {
    pub(crate) fn new(gone: CancellationToken, stop: CancellationToken) -> Self {
        let inner = AsyncRwTransport::new_server(tokio::io::stdin(), tokio::io::stdout());
        Self { inner: inner.with_max_line_length(MAX_LINE), unread: Arc::default(), gone, stop }
    }

    /// Waits until the client has taken some of what was written. That it has closed its end is noticed meanwhile.
    async fn until_read(&self) {
        while self.unread.messages.load(Ordering::Relaxed) >= MAX_UNREAD {
            tokio::select! {
                () = self.unread.fewer.notified() => {}
                () = tokio::time::sleep(LOOK) => {
                    if is_closed() {
                        self.gone.cancel();
                    }
                }
            }
        }
    }
}

/// Whether nobody can write to standard input any more, whatever of it was not read yet.
fn is_closed() -> bool {
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

impl Transport<RoleServer> for Stdio {
    type Error = std::io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.unread.messages.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(Arc::clone(&self.unread));
        let send = self.inner.send(item);
        async move {
            let _waits = waits;
            send.await
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let stop = self.stop.clone();
        let receive = async {
            self.until_read().await;
            self.inner.receive().await
        };
        let message = tokio::select! {
            message = receive => message,
            () = stop.cancelled() => None,
        };
        if message.is_none() {
            self.gone.cancel();
        }
        message
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        // What cannot be written to a client that is gone is not waited for.
        if self.unread.messages.load(Ordering::Relaxed) > 0 { Ok(()) } else { self.inner.close().await }
    }
}
