//! Reads a Rust source as tokens and tells which words and paths it names, whatever its formatting.
//!
//! Comments and strings are no tokens, and `use` trees are flattened, so that a rule sees `use crate::{live::Ring}` as
//! the path `crate::live::Ring`. What macros are given is read as well, as tokens.

use anyhow::Context;
use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// One source file and what it names.
#[derive(Debug)]
pub(super) struct Source {
    /// Path from the root of the repository, with `/`.
    pub(super) file: String,
    /// The module that the file is, from its path below `src`; the crate's root is empty. None outside `src`.
    pub(super) module: Option<Vec<String>>,
    /// Every path of more than one segment, and everything imported.
    pub(super) paths: Vec<Path>,
    /// Every identifier and keyword.
    pub(super) words: Vec<Word>,
    /// The modules in files of their own that are compiled for tests only.
    pub(super) test_modules: Vec<Vec<String>>,
}

/// A path as the source spells it.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    /// The module it stands in, inline modules included.
    pub(super) scope: Vec<String>,
    /// Part of a `use` item.
    pub(super) import: bool,
    /// Part of a `use` item with a visibility of its own.
    pub(super) exported: bool,
    /// Ends in `*`, or in a macro's variable: whatever the path has below it is named.
    pub(super) glob: bool,
    /// The name after `as`.
    pub(super) alias: Option<String>,
    /// In code that is compiled for tests only.
    pub(super) test: bool,
}

impl Path {
    /// The path from the crate's root, if it begins with `crate`, `self` or `super`.
    pub(super) fn absolute(&self) -> Option<Vec<String>> {
        let mut at = match self.segments.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.scope.clone(),
            _ => return None,
        };
        let mut rest = self.segments.as_slice();
        while let [first, tail @ ..] = rest {
            match first.as_str() {
                "crate" | "self" => {}
                "super" => drop(at.pop()),
                _ => break,
            }
            rest = tail;
        }
        // `use a::{self}` names `a`.
        at.extend(rest.iter().filter(|segment| *segment != "self").cloned());
        Some(at)
    }
}

/// An identifier or keyword.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) line: usize,
    /// In code that is compiled for tests only.
    pub(super) test: bool,
    /// What stands right before and right after it, where that is punctuation or a parenthesis.
    pub(super) before: Option<char>,
    pub(super) after: Option<char>,
}

impl Source {
    /// Reads `text`, the contents of `file`.
    pub(super) fn read(file: &str, text: &str) -> anyhow::Result<Self> {
        let tokens: TokenStream = text
            .parse()
            .map_err(|error: proc_macro2::LexError| anyhow::anyhow!("{}: {error}", error.span().start().line))
            .with_context(|| format!("cannot read {file} as Rust"))?;
        let module = module_of(file);
        let mut scan = Scan {
            source: Self {
                file: file.to_owned(),
                module: module.clone(),
                paths: Vec::new(),
                words: Vec::new(),
                test_modules: Vec::new(),
            },
            scope: module.unwrap_or_default(),
            import: false,
            exported: false,
            test: false,
        };
        scan.walk(tokens);
        Ok(scan.source)
    }

    /// Whether the file belongs to the module of this name at the crate's root.
    pub(super) fn is_in(&self, module: &str) -> bool {
        self.root_module() == Some(module)
    }

    /// The module at the crate's root that the file belongs to.
    pub(super) fn root_module(&self) -> Option<&str> {
        self.module.as_ref()?.first().map(String::as_str)
    }
}

/// `crates/x/src/a/b.rs` and `crates/x/src/a/b/mod.rs` are `a::b`; `lib.rs` and `main.rs` are the root.
fn module_of(file: &str) -> Option<Vec<String>> {
    let (_, below) = file.split_once("/src/")?;
    let mut module: Vec<String> = below.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || matches!(below, "lib.rs" | "main.rs") {
        module.pop();
    }
    Some(module)
}

/// The walk through one file: what was found, and where the walk stands.
struct Scan {
    source: Source,
    scope: Vec<String>,
    import: bool,
    exported: bool,
    test: bool,
}

impl Scan {
    fn walk(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let outer = self.test;
        let mut whole_is_test = outer;
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let inner = is_punct(tokens.get(at + 1), '!');
                    at += 1 + usize::from(inner);
                    if let Some(TokenTree::Group(group)) = tokens.get(at) {
                        let test = is_cfg_test(group.stream());
                        whole_is_test |= inner && test;
                        self.test |= test;
                    }
                }
                TokenTree::Punct(punct) => {
                    // The item that an attribute spoke of ends here, or a part of it; erring this way is strict.
                    if matches!(punct.as_char(), ';' | ',') {
                        self.test = whole_is_test;
                    }
                    at += 1;
                }
                TokenTree::Group(group) => {
                    self.walk(group.stream());
                    if group.delimiter() == Delimiter::Brace {
                        self.test = whole_is_test;
                    }
                    at += 1;
                }
                TokenTree::Ident(word) if word == "mod" => at = self.module(&tokens, at, whole_is_test),
                TokenTree::Ident(word) if word == "use" && !is_punct(tokens.get(at + 1), '<') => {
                    self.word(&tokens, at);
                    self.import = true;
                    self.exported = is_public(&tokens[..at]);
                    at = self.path(&tokens, at + 1, Vec::new());
                    self.import = false;
                    self.exported = false;
                }
                TokenTree::Ident(_) => at = self.path(&tokens, at, Vec::new()),
                TokenTree::Literal(_) => at += 1,
            }
        }
        self.test = outer;
    }

    /// `mod name { ... }` or `mod name;`
    fn module(&mut self, tokens: &[TokenTree], at: usize, outer_test: bool) -> usize {
        self.word(tokens, at);
        let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else { return at + 1 };
        self.word(tokens, at + 1);
        self.scope.push(plain(name));
        match tokens.get(at + 2) {
            Some(TokenTree::Group(body)) => self.walk(body.stream()),
            _ if self.test => self.source.test_modules.push(self.scope.clone()),
            _ => {}
        }
        self.scope.pop();
        self.test = outer_test;
        at + 3
    }

    /// A path or a `use` tree from `at` on, below `segments`. Returns where it ends.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, mut segments: Vec<String>) -> usize {
        let line = tokens.get(at).map_or(0, line_of);
        let mut glob = false;
        if is_path_separator(tokens, at) {
            at += 2;
        }
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(word)) => {
                    self.word(tokens, at);
                    segments.push(plain(word));
                    at += 1;
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.branches(group.stream(), &segments);
                    return at + 1;
                }
                Some(TokenTree::Punct(punct)) if matches!(punct.as_char(), '*' | '$') => {
                    glob = true;
                    at += 1;
                    break;
                }
                _ => break,
            }
            if !is_path_separator(tokens, at) {
                break;
            }
            at += 2;
        }
        let mut alias = None;
        if self.import
            && let (Some(TokenTree::Ident(word)), Some(TokenTree::Ident(name))) = (tokens.get(at), tokens.get(at + 1))
            && word == "as"
        {
            alias = Some(plain(name));
            at += 2;
        }
        if self.import || glob || segments.len() > 1 {
            let scope = self.scope.clone();
            let (import, exported, test) = (self.import, self.exported, self.test);
            self.source.paths.push(Path { segments, line, scope, import, exported, glob, alias, test });
        }
        at
    }

    /// The branches of a `use` tree.
    fn branches(&mut self, stream: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let import = std::mem::replace(&mut self.import, true);
        let mut at = 0;
        while at < tokens.len() {
            let next = self.path(&tokens, at, prefix.to_vec());
            // A comma, or something that is no `use` tree: step over it.
            at = next.max(at + 1);
            while at < tokens.len() && is_punct(tokens.get(at), ',') {
                at += 1;
            }
        }
        self.import = import;
    }

    fn word(&mut self, tokens: &[TokenTree], at: usize) {
        let Some(TokenTree::Ident(word)) = tokens.get(at) else { return };
        let beside = |token: Option<&TokenTree>| match token? {
            TokenTree::Punct(punct) => Some(punct.as_char()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => Some('('),
            _ => None,
        };
        self.source.words.push(Word {
            text: plain(word),
            line: word.span().start().line,
            test: self.test,
            before: beside(at.checked_sub(1).and_then(|before| tokens.get(before))),
            after: beside(tokens.get(at + 1)),
        });
    }
}

/// The name without the `r#` of a raw identifier.
fn plain(word: &Ident) -> String {
    let text = word.to_string();
    text.strip_prefix("r#").map_or(text.clone(), str::to_owned)
}

fn line_of(token: &TokenTree) -> usize {
    token.span().start().line
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

/// Whether what stands before an item ends in `pub` or `pub(...)`.
fn is_public(before: &[TokenTree]) -> bool {
    let is_pub = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Ident(word)) if word == "pub");
    match before.last() {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
            is_pub(before.len().checked_sub(2).and_then(|at| before.get(at)))
        }
        last => is_pub(last),
    }
}

/// Whether an attribute leaves its item out of everything but tests: `cfg(test)`, `cfg(all(test, ...))`, `test`.
fn is_cfg_test(attribute: TokenStream) -> bool {
    fn names_test(stream: TokenStream) -> bool {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        tokens.iter().enumerate().any(|(at, token)| match (token, tokens.get(at + 1)) {
            (TokenTree::Ident(word), Some(TokenTree::Group(group))) => word == "all" && names_test(group.stream()),
            (TokenTree::Ident(word), _) => word == "test",
            _ => false,
        })
    }
    let mut tokens = attribute.into_iter();
    match (tokens.next(), tokens.next()) {
        (Some(TokenTree::Ident(word)), None) => word == "test",
        (Some(TokenTree::Ident(word)), Some(TokenTree::Group(group))) => word == "cfg" && names_test(group.stream()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Source {
        Source::read("crates/schedtrace-core/src/analysis/tasks.rs", text).unwrap()
    }

    fn absolute(text: &str) -> Vec<String> {
        read(text).paths.iter().filter_map(|path| Some(path.absolute()?.join("::"))).collect()
    }

    #[test]
    fn files_are_modules() {
        let of = |file| module_of(file).map(|module| module.join("::"));
        assert_eq!(of("crates/x/src/lib.rs").as_deref(), Some(""));
        assert_eq!(of("crates/x/src/a.rs").as_deref(), Some("a"));
        assert_eq!(of("crates/x/src/a/mod.rs").as_deref(), Some("a"));
        assert_eq!(of("crates/x/src/a/b.rs").as_deref(), Some("a::b"));
        assert_eq!(of("crates/x/src/a/lib.rs").as_deref(), Some("a::lib"));
        assert_eq!(of("crates/x/tests/live.rs"), None);
    }

    #[test]
    fn use_trees_are_flattened() {
        assert_eq!(
            absolute("use crate::{live::{self, Ring as R}, merge::*, event};"),
            ["live", "live::Ring", "merge", "event"]
        );
        assert_eq!(absolute("pub(crate) use super::super::live::Ring;"), ["live::Ring"]);
        assert_eq!(
            absolute("mod tests { use super::*; use super::super::states; }"),
            ["analysis::tasks", "analysis::states"]
        );
    }

    #[test]
    fn paths_are_seen_in_expressions_types_attributes_and_macros() {
        for text in [
            "fn f() { crate::live::ring() }",
            "fn f(x: Vec<crate::live::Ring>) {}",
            "#[derive(crate::live::Ring)] struct S;",
            "m! { a => crate :: live :: /* why */ ring }",
            "macro_rules! m { () => { $crate::live::ring() } }",
            "fn f() { x.map(crate::r#live::ring::<u8>) }",
        ] {
            assert!(absolute(text).iter().any(|path| path.starts_with("live")), "{text}");
        }
        assert!(read("macro_rules! m { ($m:ident) => { use crate::$m; } }").paths.iter().any(|path| path.glob));
    }

    #[test]
    fn comments_and_strings_name_nothing() {
        let source = read(
            "//! crate::live\n/* crate::live */ /// crate::live\nconst A: &str = \"crate::live unsafe\"; \
             const B: &str = r#\"crate::live \" unsafe\"#; const C: char = '\"'; fn f<'live>() {}",
        );
        assert!(source.paths.is_empty(), "{:?}", source.paths);
        assert!(source.words.iter().all(|word| word.text != "unsafe"));
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let source = read("// one\nuse crate::{\n    event,\n    live::Ring,\n};\n");
        let lines: Vec<_> = source.paths.iter().map(|path| (path.segments.join("::"), path.line)).collect();
        assert_eq!(lines, [("crate::event".to_owned(), 3), ("crate::live::Ring".to_owned(), 4)]);
    }

    #[test]
    fn aliases_globs_and_visibility_are_told() {
        let source = read("pub use crate::live as l; use crate::*; use {crate::a, b::c as d};");
        let told: Vec<_> = source.paths.iter().map(|p| (p.exported, p.glob, p.alias.as_deref())).collect();
        assert_eq!(
            told,
            [(true, false, Some("l")), (false, true, None), (false, false, None), (false, false, Some("d"))]
        );
    }

    #[test]
    fn test_code_is_told_apart() {
        let source = read(
            "#[cfg(test)] use a::b; fn one() { mark(); }\n\
             #[cfg(all(test, unix))] mod tests { fn two() { mark(); } }\n\
             #[cfg(not(test))] fn three() { mark(); }\n\
             #[test] fn four() { mark(); }\n\
             #[cfg(test)] mod elsewhere;\n\
             fn five() { mark(); }",
        );
        let marks: Vec<_> = source.words.iter().filter(|word| word.text == "mark").map(|word| word.test).collect();
        assert_eq!(marks, [false, true, false, true, false]);
        assert_eq!(source.test_modules, [["analysis", "tasks", "elsewhere"]]);
    }

    #[test]
    fn captures_are_no_imports() {
        let source = read("fn f<'a>(x: &'a u8) -> impl Sized + use<'a> { live::x() }");
        assert!(source.paths.iter().all(|path| !path.import), "{:?}", source.paths);
    }

    #[test]
    fn what_is_no_rust_is_an_error() {
        assert!(Source::read("a.rs", "fn f( {").is_err());
        assert!(Source::read("a.rs", "\"open").is_err());
    }
}
