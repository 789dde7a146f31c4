//! `schedtrace top`

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use schedtrace_core::Error;
#[cfg(feature = "live")]
use schedtrace_core::system::stacks::StackHelper;
use schedtrace_tui::{App, Ended, Origin, Quit, Settings, check_terminal, once, show};

use crate::args::TopArgs;
use crate::{FAILURE, Failure};

/// How long a picture that is printed may be waited for, beyond the time that it shows.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(args: &TopArgs) -> Result<(), Failure> {
    if !args.once {
        check_terminal().map_err(cannot_show)?;
    }
    if let Some(interval) = args.interval {
        Settings { interval, ..Settings::default() }.check()?;
    }
    match &args.trace {
        Some(trace) => recorded(args, trace),
        None => live(args),
    }
}

/// As whoever called root's power up: what is remembered and written is theirs.
#[cfg(feature = "live")]
fn recorded(args: &TopArgs, trace: &Path) -> Result<(), Failure> {
    use crate::privilege;

    let user = privilege::invoking_user(args.collect.user.as_deref())?;
    if user.is_some() {
        privilege::drop_all(user.as_ref())?;
    }
    shown(args, Origin::trace(trace)?, settings(args, |name| variable(user.as_ref(), name))?)
}

#[cfg(not(feature = "live"))]
fn recorded(args: &TopArgs, trace: &Path) -> Result<(), Failure> {
    shown(args, Origin::trace(trace)?, settings(args, |name| std::env::var_os(name))?)
}

/// A variable of the environment, as the user would have it.
#[cfg(feature = "live")]
fn variable(user: Option<&crate::privilege::User>, name: &str) -> Option<OsString> {
    user.map_or_else(|| std::env::var_os(name), |user| user.variable(name))
}

fn cannot_show(error: std::io::Error) -> Failure {
    Failure::Coded(FAILURE, error.to_string())
}

/// What the user chose, once and for this time.
fn settings(args: &TopArgs, variable: impl Fn(&str) -> Option<OsString>) -> Result<Settings, Error> {
    let mut settings = Settings::of_user(variable)?;
    settings.interval = args.interval.unwrap_or(settings.interval);
    settings.look = args.theme.unwrap_or(settings.look);
    settings.ascii |= args.ascii;
    settings.view.clone_from(&args.view);
    Ok(settings)
}

fn shown(args: &TopArgs, origin: Origin, settings: Settings) -> Result<(), Failure> {
    if !args.once {
        return match show(origin, settings, &Quit::default()).map_err(cannot_show)? {
            Ended::Quit => Ok(()),
            Ended::Again { events } => again(&events),
        };
    }
    let patience = settings.interval.saturating_add(PATIENCE);
    let mut app = App::new(origin, settings)?;
    let (columns, lines) = schedtrace_tui::size().unwrap_or((80, 24));
    let text = once(&mut app, args.width.unwrap_or(columns), args.height.unwrap_or(lines), patience);
    let text = text.map_err(cannot_show)?;
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::from)
}

#[cfg(feature = "live")]
fn live(args: &TopArgs) -> Result<(), Failure> {
    use crate::privilege;
    use schedtrace_core::flight::WindowOptions;

    if args.collect.asks_for_help() {
        return crate::events::help();
    }
    let user = privilege::invoking_user(args.collect.user.as_deref())?;
    let attached = args.collect.builder().load().and_then(|loaded| loaded.attach());
    let helper = stack_helper();
    privilege::drop_all(user.as_ref())?;
    let mut settings = settings(args, |name| variable(user.as_ref(), name))?;
    let attached = match attached {
        Ok(attached) => attached,
        // Nothing can be recorded here; what procfs and sysfs say is there for everybody.
        Err(why @ (Error::Privilege { .. } | Error::NoBtf { .. } | Error::Bpf { .. })) => {
            return shown(args, Origin::procfs(why.to_string())?, settings);
        }
        Err(error) => return Err(error.into()),
    };
    settings.begins_anew = privilege::comes_back();
    let collector = attached.start()?;
    let stopper = collector.stopper();
    let options = WindowOptions { duration: settings.interval.max(LOOK_BACK), ..WindowOptions::default() };
    shown(args, Origin::live(collector, move || stopper.stop(), options)?.helped(helper), settings)
}

/// Starts the one that may see where tasks are in the kernel, if this one may: none of its own threads will. Without it, the
/// kernel says why it does not tell.
#[cfg(feature = "live")]
fn stack_helper() -> Option<StackHelper> {
    if !crate::privilege::may_see_stacks() {
        return None;
    }
    let program = std::env::current_exe().ok()?;
    StackHelper::start(std::process::Command::new(program).arg("stacks").env_clear().current_dir("/")).ok()
}

/// What that one does.
#[cfg(feature = "live")]
pub(crate) fn stacks() -> Result<(), Failure> {
    crate::privilege::keep_for_stacks()?;
    Ok(schedtrace_core::system::stacks::serve(Path::new("/"), std::io::stdin().lock(), std::io::stdout().lock())?)
}

/// Starts this program again in its own place, with other events: the privileges that were given up come back with that
/// alone, where the kernel gives them to whoever starts it.
#[cfg(feature = "live")]
fn again(events: &str) -> Result<(), Failure> {
    use std::os::unix::process::CommandExt;

    let program = std::env::current_exe().map_err(Error::io("cannot find", "/proc/self/exe"))?;
    let error = std::process::Command::new(&program).args(with_events(std::env::args_os().skip(1), events)).exec();
    Err(Error::io("cannot start", &program)(error).into())
}

/// Only what runs collects.
#[cfg(not(feature = "live"))]
fn again(_: &str) -> Result<(), Failure> {
    Ok(())
}

/// The same arguments, but for the events.
#[cfg(feature = "live")]
fn with_events(args: impl Iterator<Item = OsString>, events: &str) -> Vec<OsString> {
    let mut args = args.peekable();
    let mut kept = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "--events" {
            args.next();
        } else if !arg.to_string_lossy().starts_with("--events=") {
            kept.push(arg);
        }
    }
    kept.push(format!("--events={events}").into());
    kept
}

/// So much of what was can be looked at, live.
#[cfg(feature = "live")]
const LOOK_BACK: Duration = Duration::from_secs(30);

/// The arguments ask for a trace already.
#[cfg(not(feature = "live"))]
fn live(_: &TopArgs) -> Result<(), Failure> {
    Err(Error::Invalid("this schedtrace was built without `live`: name a trace".into()).into())
}

#[cfg(all(test, feature = "live"))]
mod tests {
    use super::*;

    #[test]
    fn it_begins_anew_with_the_same_arguments_but_for_the_events() {
        let again = |args: &[&str]| with_events(args.iter().map(OsString::from), "default,irq").join(" ".as_ref());
        assert_eq!(again(&["top"]), "top --events=default,irq");
        assert_eq!(again(&["top", "--events", "all", "--ascii"]), "top --ascii --events=default,irq");
        assert_eq!(again(&["top", "--events=all", "-i", "2s", "--events"]), "top -i 2s --events=default,irq");
    }
}
