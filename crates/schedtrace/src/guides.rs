//! `schedtrace completions` and `schedtrace man`: what the arguments are, for shells and for `man`.

use std::io::Write;

use clap::CommandFactory;
use schedtrace_core::Error;

use crate::Failure;
use crate::args::{Args, CompletionsArgs, ManArgs};

pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    // What writes into a pipe that is closed would panic.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "schedtrace", &mut script);
    std::io::stdout().write_all(&script).map_err(Failure::from)
}

pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    clap_mangen::generate_to(Args::command(), &args.folder)
        .map_err(Error::io("cannot write the manual pages into", &args.folder))?;
    Ok(())
}
