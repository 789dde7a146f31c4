//! Chores of this repository: `cargo run -p xtask -- house` checks the rules of the house, `-- bpf` rebuilds the
//! BPF objects, `-- mistakes` puts known mistakes back and sees their tests fail, `-- kernels` prints which kernels were
//! tried.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks through its output")]

mod bpf;
mod house;
mod kernels;
mod mistakes;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Chores of this repository")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check who imports whom, and what else ARCHITECTURE.md promises; fails with file:line and the rule broken.
    House {
        /// Only print the dependency picture, as it has to stand in ARCHITECTURE.md.
        #[arg(long)]
        picture: bool,
    },
    /// Rebuild the BPF objects and their skeletons with the pinned clang.
    Bpf {
        /// Change nothing; fail if what is committed differs from what is built.
        #[arg(long)]
        check: bool,
    },
    /// Put each known mistake back into a copy, and see the test that guards against it fail. Needs root.
    Mistakes {
        /// Run no test; only see that each can still be put back.
        #[arg(long)]
        check: bool,
        /// Only those whose file name contains this.
        only: Option<String>,
    },
    /// Print docs/kernels.md, of what scripts/kernels.sh has found.
    Kernels {
        /// A folder per machine, with `machine`, `doctor.json` and `output`.
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().chore {
        Chore::House { picture: true } => house::print_picture(),
        Chore::House { picture: false } => house::check(),
        Chore::Bpf { check } => bpf::run(check),
        Chore::Kernels { folders } => kernels::print(&folders),
        Chore::Mistakes { check, only } => mistakes::run(check, only.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
