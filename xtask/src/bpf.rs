//! Rebuilds the BPF objects and their skeletons, or checks that the committed ones are what the sources give.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use libbpf_cargo::SkeletonBuilder;

/// The exact compiler: another one gives other objects, and they could not be compared.
const CLANG: &str = "clang-19";
const CLANG_VERSION: &str = "19.1.7";
const CRATE: &str = "crates/schedtrace-bpf";
const OBJECTS: [&str; 2] = ["ring", "arena"];
/// What tests load, which has no skeleton: the sources as the crate's folder sees them, and the objects beside them.
const OF_TESTS: [&str; 2] =
    ["../schedtrace-core/tests/sched_ext/two_queues.bpf.c", "../schedtrace-core/tests/inspect/shapes.bpf.c"];

/// Builds every object. With `check`, builds beside the committed files and fails where the result differs.
pub(crate) fn run(check: bool) -> Result<()> {
    compiler_is_pinned()?;
    // Not at compile time: a build shared between two clones must work in each.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").context("run it by cargo: `cargo run -p xtask -- bpf`")?;
    let krate = Path::new(&xtask).join("..").join(CRATE).canonicalize()?;
    // Sources are named relative to the crate, and its folder is `.`: the line information in BTF holds no path of this
    // machine.
    std::env::set_current_dir(&krate)?;
    for name in OBJECTS {
        let object = PathBuf::from(format!("src/bpf/{name}.bpf.o"));
        let skeleton = PathBuf::from(format!("src/{name}.skel.rs"));
        let fresh = tempfile::tempdir()?;
        let new_object = fresh.path().join(format!("{name}.bpf.o"));
        let new_skeleton = fresh.path().join("skel.rs");
        build(name, &new_object, &new_skeleton)?;
        for (new, committed) in [(new_object, object), (new_skeleton, skeleton)] {
            compare_or_replace(&new, &committed, check)?;
        }
    }
    for source in OF_TESTS {
        let fresh = tempfile::tempdir()?;
        let object = fresh.path().join("of_tests.o");
        compile(source, &object).build().with_context(|| format!("cannot build {source}"))?;
        compare_or_replace(&object, &Path::new(source).with_extension("o"), check)?;
    }
    Ok(())
}

fn compare_or_replace(new: &Path, committed: &Path, check: bool) -> Result<()> {
    let new = fs::read(new)?;
    if !check {
        return Ok(fs::write(committed, new)?);
    }
    let old = fs::read(committed).with_context(|| format!("cannot read {CRATE}/{}", committed.display()))?;
    ensure!(
        old == new,
        "{CRATE}/{} is not what the sources give: run `make bpf` and commit the result",
        committed.display()
    );
    Ok(())
}

fn compile(source: &str, object: &Path) -> SkeletonBuilder {
    let mut builder = SkeletonBuilder::new();
    // Records are built on the stack as one struct and copied as another.
    let args = ["-mcpu=v3", "-fno-strict-aliasing", "-Wall", "-Werror", "-fdebug-compilation-dir=."];
    builder.source(source).obj(object).clang(CLANG).clang_args(args);
    builder
}

fn build(name: &str, object: &Path, skeleton: &Path) -> Result<()> {
    compile(&format!("src/bpf/{name}.bpf.c"), object)
        .reference_obj(true)
        .build_and_generate(skeleton)
        .with_context(|| format!("cannot build {name}.bpf.c"))?;
    // The skeleton names the object by its absolute path; ours stands beside the sources.
    let text = fs::read_to_string(skeleton)?;
    let Some((head, tail)) = text.split_once("include_bytes!(\"") else { bail!("the skeleton includes no object") };
    let Some((_, tail)) = tail.split_once('"') else { bail!("the skeleton includes no object") };
    fs::write(skeleton, format!("{head}include_bytes!(\"bpf/{name}.bpf.o\"{tail}"))?;
    Ok(())
}

fn compiler_is_pinned() -> Result<()> {
    let output = Command::new(CLANG)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {CLANG}: install Debian's package {CLANG} ({CLANG_VERSION})"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().next().unwrap_or_default();
    ensure!(
        first.contains(&format!("version {CLANG_VERSION} ")),
        "the BPF objects are built with {CLANG} {CLANG_VERSION}, and this one is: {first}"
    );
    Ok(())
}
