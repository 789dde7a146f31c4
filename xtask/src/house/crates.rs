//! The rules between crates: who may depend on whom, and what core's dependencies may bring.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use cargo_metadata::{DependencyKind, MetadataCommand};

use super::Violation;

const LAYERS: &str = "only schedtrace-core imports schedtrace-bpf; frontends import schedtrace-core only, and the \
                      `schedtrace` command alone imports the tui and mcp frontends as well";
const LIBBPF: &str = "libbpf is the business of schedtrace-bpf and schedtrace-core; frontends never import it";
const RENAMED: &str = "crates of this repository keep their names, so that the rules see them";
const CLEAN: &str =
    "without `sql`, schedtrace-core brings no async runtime; and never an argument parser, a terminal, Python or MCP";
const PURE: &str =
    "without `live` and `sql`, schedtrace-core brings neither libbpf nor anything that needs a C compiler";
const SMALL: &str = "without features, schedtrace-core brings neither libbpf nor Arrow and Parquet";

/// A member of the workspace and its direct dependencies.
#[derive(Debug)]
pub(super) struct Crate {
    pub(super) name: String,
    /// Path of its Cargo.toml from the root of the repository.
    pub(super) manifest: String,
    /// The Cargo.toml itself, to find lines in.
    pub(super) text: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// A direct dependency as the manifest states it, of any kind.
#[derive(Debug)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) rename: Option<String>,
    pub(super) optional: bool,
    /// For tests, examples and benches only.
    pub(super) dev: bool,
}

/// The root of the repository, and its crates by name.
pub(super) fn read() -> anyhow::Result<(PathBuf, Vec<Crate>)> {
    let metadata = MetadataCommand::new().no_deps().exec().context("cannot read the workspace")?;
    let root = metadata.workspace_root.clone().into_std_path_buf();
    let mut crates = Vec::new();
    for package in metadata.packages {
        let text = std::fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("cannot read {}", package.manifest_path))?;
        let dependencies = package.dependencies.into_iter().map(|dependency| Dependency {
            name: dependency.name,
            rename: dependency.rename,
            optional: dependency.optional,
            dev: dependency.kind == DependencyKind::Development,
        });
        crates.push(Crate {
            name: package.name.to_string(),
            manifest: package.manifest_path.strip_prefix(&root)?.to_string(),
            text,
            dependencies: dependencies.collect(),
        });
    }
    crates.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((root, crates))
}

/// The crates of this repository that one of them may depend on, in whatever way.
fn may_import(name: &str) -> &'static [&'static str] {
    match name {
        "schedtrace-bpf" | "xtask" => &[],
        "schedtrace-core" => &["schedtrace-bpf"],
        "schedtrace" => &["schedtrace-core", "schedtrace-mcp", "schedtrace-tui"],
        // The frontends, and examples: whoever embeds the library.
        _ => &["schedtrace-core"],
    }
}

fn may_import_libbpf(name: &str, library: &str) -> bool {
    match library {
        "libbpf-rs" | "libbpf-sys" => matches!(name, "schedtrace-bpf" | "schedtrace-core"),
        "libbpf-cargo" => matches!(name, "schedtrace-bpf" | "xtask"),
        _ => true,
    }
}

/// The rules over direct dependencies.
pub(super) fn check(crates: &[Crate]) -> Vec<Violation> {
    let ours: BTreeSet<&str> = crates.iter().map(|one| one.name.as_str()).collect();
    let mut violations = Vec::new();
    for one in crates {
        for dependency in &one.dependencies {
            let is_ours = ours.contains(dependency.name.as_str());
            let mut broken = |rule| {
                violations.push(Violation {
                    file: one.manifest.clone(),
                    line: line_of(&one.text, dependency),
                    what: format!("{} depends on {}", one.name, dependency.name),
                    rule,
                });
            };
            if is_ours && !may_import(&one.name).contains(&dependency.name.as_str()) {
                broken(LAYERS);
            }
            if !may_import_libbpf(&one.name, &dependency.name) {
                broken(LIBBPF);
            }
            if is_ours && dependency.rename.is_some() {
                broken(RENAMED);
            }
        }
    }
    violations
}

/// The line that declares a dependency; the first line where it cannot be told.
fn line_of(manifest: &str, dependency: &Dependency) -> usize {
    let name = dependency.rename.as_deref().unwrap_or(&dependency.name);
    let mut in_dependencies = false;
    for (at, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            in_dependencies = table.ends_with("dependencies");
            if table.ends_with(&format!("dependencies.{name}")) {
                return at + 1;
            }
        } else if in_dependencies
            && line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(['.', '=']))
        {
            return at + 1;
        }
    }
    1
}

/// The rules over everything that schedtrace-core brings: with all features, with all but `live`, and with none.
pub(super) fn check_closures(
    all: &BTreeSet<String>,
    offline: &BTreeSet<String>,
    none: &BTreeSet<String>,
) -> Vec<Violation> {
    let broken = |closure: &BTreeSet<String>, banned: &[&str], features: &str, rule| -> Vec<Violation> {
        closure
            .iter()
            .filter_map(|package| {
                let name = package.split_whitespace().next()?;
                banned.iter().any(|ban| name == *ban || name.starts_with(&format!("{ban}-"))).then(|| Violation {
                    file: "crates/schedtrace-core/Cargo.toml".to_owned(),
                    line: 1,
                    what: format!(
                        "schedtrace-core brings {package}: see `cargo tree -p schedtrace-core {features} -e no-dev,no-proc-macro -i {name}`"
                    ),
                    rule,
                })
            })
            .collect()
    };
    let frontends = ["tokio", "clap", "ratatui", "anyhow", "pyo3", "rmcp"];
    let mut violations = broken(all, &frontends, "--all-features", CLEAN);
    // What compiles C does it with one of these.
    let compilers = ["libbpf", "cc", "cmake", "bindgen", "autotools"];
    violations.extend(broken(offline, &compilers, "--no-default-features --features ...", PURE));
    violations.extend(broken(none, &["libbpf", "arrow", "parquet"], "--no-default-features", SMALL));
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depends(name: &str, on: &str, rename: Option<&str>) -> Vec<Crate> {
        let crate_of = |name: &str, dependencies| Crate {
            name: name.to_owned(),
            manifest: format!("crates/{name}/Cargo.toml"),
            text: format!("[package]\nname = \"{name}\"\n\n[dependencies]\nserde = \"1\"\n{on}.workspace = true\n"),
            dependencies,
        };
        let dependency =
            Dependency { name: on.to_owned(), rename: rename.map(str::to_owned), optional: false, dev: false };
        let mut crates = vec![crate_of(name, vec![dependency])];
        if name != on && on.starts_with("schedtrace") {
            crates.push(crate_of(on, Vec::new()));
        }
        crates
    }

    #[test]
    fn allowed_dependencies_pass() {
        for (name, on) in [
            ("schedtrace-core", "schedtrace-bpf"),
            ("schedtrace-core", "libbpf-rs"),
            ("schedtrace-bpf", "libbpf-rs"),
            ("xtask", "libbpf-cargo"),
            ("schedtrace-tui", "schedtrace-core"),
            ("schedtrace", "schedtrace-tui"),
            ("schedtrace", "schedtrace-mcp"),
            ("embed", "schedtrace-core"),
        ] {
            assert_eq!(check(&depends(name, on, None)), [], "{name} -> {on}");
        }
    }

    #[test]
    fn forbidden_dependencies_are_found_with_their_line() {
        for (name, on, rule) in [
            ("schedtrace", "schedtrace-bpf", LAYERS),
            ("schedtrace-mcp", "schedtrace-bpf", LAYERS),
            ("schedtrace-py", "schedtrace-mcp", LAYERS),
            ("schedtrace-mcp", "schedtrace-tui", LAYERS),
            ("schedtrace-core", "schedtrace-tui", LAYERS),
            ("schedtrace-bpf", "schedtrace-core", LAYERS),
            ("schedtrace", "schedtrace-py", LAYERS),
            ("embed", "schedtrace-mcp", LAYERS),
            ("xtask", "schedtrace-core", LAYERS),
            ("schedtrace", "libbpf-rs", LIBBPF),
            ("schedtrace-tui", "libbpf-sys", LIBBPF),
            ("schedtrace-core", "libbpf-cargo", LIBBPF),
        ] {
            let found = check(&depends(name, on, None));
            let [violation] = found.as_slice() else { panic!("{name} -> {on}: {found:?}") };
            assert_eq!((violation.rule, violation.line), (rule, 6), "{name} -> {on}");
            assert_eq!(violation.file, format!("crates/{name}/Cargo.toml"));
        }
    }

    #[test]
    fn a_rename_hides_nothing() {
        let found = check(&depends("schedtrace-core", "schedtrace-bpf", Some("kernel")));
        assert_eq!(found.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [RENAMED]);
    }

    #[test]
    fn lines_are_found_in_tables_and_in_keys() {
        let dependency = |name: &str| Dependency { name: name.to_owned(), rename: None, optional: false, dev: false };
        let manifest = "[features]\nlibbpf-rs = []\n[dev-dependencies]\nlibbpf-rs-x = \"1\"\nlibbpf-rs= \"1\"\n\
                        [target.'cfg(unix)'.dependencies.tokio]\nversion = \"1\"\n";
        assert_eq!(line_of(manifest, &dependency("libbpf-rs")), 5);
        assert_eq!(line_of(manifest, &dependency("tokio")), 6);
        assert_eq!(line_of(manifest, &dependency("absent")), 1);
    }

    #[test]
    fn closures_are_held_to_their_bans() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let clean = set(&["serde v1.0.0", "arrow-array v59.3.0", "libbpf-sys v1.7.0", "clapper v0.1.0"]);
        assert_eq!(check_closures(&clean, &set(&["serde v1.0.0"]), &set(&["serde v1.0.0"])), []);
        for name in ["tokio", "tokio-util", "clap", "clap_builder", "ratatui", "anyhow", "pyo3", "rmcp"] {
            // What clap brings it does not bring without clap itself.
            let found = check_closures(&set(&[&format!("{name} v1.0.0")]), &set(&[]), &set(&[]));
            assert_eq!(found.len(), usize::from(name != "clap_builder"), "{name}");
        }
        for name in ["libbpf-sys", "libbpf-rs", "arrow-array", "arrow", "parquet"] {
            let found = check_closures(&set(&[]), &set(&[]), &set(&[&format!("{name} v1.0.0")]));
            assert_eq!(found.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [SMALL], "{name}");
        }
        for name in ["libbpf-sys", "cc", "bindgen"] {
            let found = check_closures(&set(&[]), &set(&[&format!("{name} v1.0.0")]), &set(&[]));
            assert_eq!(found.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [PURE], "{name}");
        }
    }
}
