//! `schedtrace top`

#[cfg(feature = "live")]
use std::sync::Arc;

use schedtrace_core::Error;
use schedtrace_tui::{Quit, Recorded, check_terminal, show};

use crate::args::TopArgs;
use crate::{FAILURE, Failure};

pub(crate) fn run(args: &TopArgs) -> Result<(), Failure> {
    check_terminal().map_err(cannot_show)?;
    if let Some(trace) = &args.trace {
        return show(&mut Recorded::open(trace)?, &Quit::default()).map_err(cannot_show);
    }
    live(args)
}

fn cannot_show(error: std::io::Error) -> Failure {
    Failure::Coded(FAILURE, error.to_string())
}

#[cfg(feature = "live")]
fn live(args: &TopArgs) -> Result<(), Failure> {
    use crate::privilege;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    if args.collect.asks_for_help() {
        return crate::events::help();
    }
    if args.interval.is_zero() {
        return Err(Error::Invalid("--interval 0s: the screen cannot be drawn all the time; try 100ms".into()).into());
    }
    let user = privilege::invoking_user(args.collect.user.as_deref())?;
    let attached = args.collect.builder().load()?.attach()?;
    privilege::drop_all(user.as_ref())?;
    let quit = Quit::default();
    // A signal must not leave the terminal as it is while we draw on it; a second one ends us as it always would.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&quit))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&quit)))
            .map_err(|error| Error::Invalid(format!("cannot catch signal {signal}: {error}")))?;
    }
    let collector = attached.start()?;
    let stopper = collector.stopper();
    let mut feed = schedtrace_tui::Live::start(collector, move || stopper.stop(), args.interval)?;
    show(&mut feed, &quit).map_err(cannot_show)
}

/// The arguments ask for a trace already.
#[cfg(not(feature = "live"))]
fn live(_: &TopArgs) -> Result<(), Failure> {
    Err(Error::Invalid("this schedtrace was built without `live`: name a trace".into()).into())
}
