//! The layers of the sources: imports run one way, and the engine is pure.
//!
//! The test reads a source as tokens, in which a comment is nothing and a doc comment is a string. A
//! module under `cfg(test)` may import from any layer.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// The modules of the root, the lowest first. A module imports from its own layer and from those
/// below it.
const LAYERS: [&[&str]; 6] = [
    &["types"],
    &["time"],
    &["engine"],
    &["handle"],
    &[
        "ask",
        "builder",
        "keyed",
        "lease",
        "observer",
        "pool",
        "reservation",
        "run",
        "wait",
        "watch",
        "weak",
    ],
    &["adapters"],
];

/// Beside the layers: it imports from none of them, and these alone import it.
const SYNC: &str = "sync";
/// Pages of documentation, which have no code and so import nothing.
const GUIDE: &str = "guide";
const USERS_OF_SYNC: [&str; 7] =
    ["handle", "keyed", "pool", "time::clock", "wait", "watch", "weak"];

/// The engine is told the time, and hands out the wakers that it keeps: its caller locks, reads the
/// clock and wakes. Each entry is a run of tokens; `*` stands for any beginning or end of a name.
const NOT_IN_THE_ENGINE: [&str; 14] = [
    "Arc",
    "Atomic*",
    "Condvar",
    "Instant :: now",
    "Mutex*",
    "RwLock*",
    "SystemTime",
    "*Clock",
    "crate :: handle",
    "crate :: sync",
    "parking_lot",
    "thread ::",
    "wake (",
    "wake_by_ref",
];

/// One module of the crate, without the modules within it.
struct Module {
    /// From the root, which has none.
    path: Vec<String>,
    tokens: Vec<String>,
}

impl Module {
    fn name(&self) -> String {
        self.path.join("::")
    }

    fn is_in(&self, name: &str) -> bool {
        let own = self.name();
        own == name || own.starts_with(&format!("{name}::"))
    }

    /// The targets of the paths that leave this module's layer, as the root names them.
    fn leads(&self) -> BTreeSet<String> {
        paths_from(&self.tokens, &["crate", "super", "self"])
            .iter()
            .filter_map(|path| from_root(&self.path, path))
            .collect()
    }

    /// The banned runs of tokens that it contains.
    fn says(&self, banned: &[&'static str]) -> Vec<&'static str> {
        let said = |run: &&&str| {
            let run: Vec<&str> = run.split(' ').collect();
            let is_run = |tokens: &[String]| {
                tokens.iter().zip(&run).all(|(token, pattern)| is_like(token, pattern))
            };
            self.tokens.windows(run.len()).any(is_run)
        };
        banned.iter().filter(said).copied().collect()
    }
}

fn is_like(token: &str, pattern: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => token.ends_with(end),
        (_, Some(start)) => token.starts_with(start),
        _ => token == pattern,
    }
}

/// The modules of a source, and of those files that it declares; the outermost is the last.
fn read(path: &[String], source: TokenStream, file: &dyn Fn(&[String]) -> String) -> Vec<Module> {
    let trees: Vec<TokenTree> = source.into_iter().collect();
    let (mut modules, mut own) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < trees.len() {
        match &trees[at..] {
            [hash, TokenTree::Group(attribute), ..]
                if is(hash, "#") && is_for_tests(attribute.stream()) =>
            {
                at = end_of_item(&trees, at + 2);
            }
            [word, name, body, ..] if is(word, "mod") => {
                let inner = [path, &[name.to_string()]].concat();
                let body = match body {
                    TokenTree::Group(body) => body.stream(),
                    _ => file(&inner).parse().expect("it compiles"),
                };
                modules.extend(read(&inner, body, file));
                at += 3;
            }
            [tree, ..] => {
                own.push(tree.clone());
                at += 1;
            }
            [] => unreachable!("`at` is within"),
        }
    }
    let mut tokens = Vec::new();
    flatten(own.into_iter().collect(), &mut tokens);
    modules.push(Module { path: path.to_vec(), tokens });
    modules
}

fn is(tree: &TokenTree, text: &str) -> bool {
    !matches!(tree, TokenTree::Group(_)) && tree.to_string() == text
}

/// `cfg(test)`, or `cfg(all(test, ..))`.
fn is_for_tests(attribute: TokenStream) -> bool {
    let text: String = attribute.to_string().split_whitespace().collect();
    ["cfg(test)", "cfg(all(test,"].iter().any(|start| text.starts_with(start))
}

/// A semicolon or a body ends an item; the braces of an import are no body.
fn end_of_item(trees: &[TokenTree], start: usize) -> usize {
    let mut is_import = false;
    for (at, tree) in trees.iter().enumerate().skip(start) {
        is_import |= is(tree, "use");
        let is_body =
            matches!(tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
        if is(tree, ";") || is_body && !is_import {
            return at + 1;
        }
    }
    trees.len()
}

fn flatten(stream: TokenStream, into: &mut Vec<String>) {
    let mut is_joint = false;
    for tree in stream {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::None => ("", ""),
                };
                into.push(open.to_owned());
                flatten(group.stream(), into);
                into.push(close.to_owned());
            }
            TokenTree::Punct(punct) if is_joint && punct.as_char() == ':' => {
                into.last_mut().expect("it is joint to one").push(':');
                is_joint = false;
            }
            tree => {
                is_joint = matches!(&tree, TokenTree::Punct(punct)
                    if punct.as_char() == ':' && punct.spacing() == Spacing::Joint);
                into.push(tree.to_string());
            }
        }
    }
}

/// The paths that begin with one of these words; a group is as many paths as it has names. The path
/// of a `pub(in path)` is no import.
fn paths_from(tokens: &[String], words: &[&str]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for at in 0..tokens.len().saturating_sub(1) {
        let is_first = at == 0 || !matches!(&*tokens[at - 1], "::" | "in");
        if is_first && words.contains(&&*tokens[at]) && tokens[at + 1] == "::" {
            path_tree(tokens, at, Vec::new(), &mut paths);
        }
    }
    paths
}

/// Reads a path or a group of paths, and returns where it ends.
fn path_tree(
    tokens: &[String],
    mut at: usize,
    mut path: Vec<String>,
    paths: &mut Vec<Vec<String>>,
) -> usize {
    while tokens[at] != "{" {
        path.push(tokens[at].clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            paths.push(path);
            return at;
        }
        at += 1;
    }
    at += 1;
    while tokens[at] != "}" {
        at = path_tree(tokens, at, path.clone(), paths);
        if tokens[at] == "as" {
            at += 2;
        }
        at += usize::from(tokens[at] == ",");
    }
    at + 1
}

/// The target of a path, as the root names it; `None` for a path that stays in the module's own
/// layer.
fn from_root(module: &[String], path: &[String]) -> Option<String> {
    let mut around = module.to_vec();
    let mut path = path.iter().peekable();
    while let Some(word) = path.next_if(|word| matches!(&***word, "crate" | "super" | "self")) {
        match &**word {
            "crate" => around.clear(),
            "super" => _ = around.pop(),
            _ => {}
        }
    }
    if around.is_empty() { path.next().cloned() } else { None }
}

/// The module of the root from which the root exports each name.
fn exports(root: &Module) -> HashMap<String, String> {
    let mut paths = Vec::new();
    for at in (0..root.tokens.len()).filter(|&at| root.tokens[at] == "use") {
        path_tree(&root.tokens, at + 1, Vec::new(), &mut paths);
    }
    let export = |path: Vec<String>| Some((path.last()?.clone(), path.first()?.clone()));
    paths.into_iter().filter_map(export).collect()
}

/// The layer on which a module of the root stands.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The imports that lead up, or beside the layers where they may not.
fn misdirected(modules: &[Module]) -> Vec<String> {
    let root = modules.last().expect("there is a root");
    let exports = exports(root);
    let mut wrong = Vec::new();
    for module in modules.iter().filter(|module| !module.path.is_empty()) {
        let own = layer(&module.path[0]);
        if own.is_none() && ![SYNC, GUIDE].contains(&&*module.path[0]) {
            wrong.push(format!("{} is on no layer", module.name()));
        }
        for name in module.leads() {
            let target = exports.get(&name).unwrap_or(&name);
            let may = if target == SYNC {
                module.is_in(SYNC) || USERS_OF_SYNC.iter().any(|user| module.is_in(user))
            } else {
                layer(target).is_some_and(|target| own.is_some_and(|own| target <= own))
            };
            if !may {
                wrong.push(format!("{} imports `{name}` (of {target})", module.name()));
            }
        }
    }
    wrong
}

/// The engine's modules that know more than they should.
fn impure(modules: &[Module]) -> Vec<String> {
    let engine = modules.iter().filter(|module| module.is_in("engine"));
    let says = |module: &Module| {
        let banned = module.says(&NOT_IN_THE_ENGINE).into_iter();
        banned.map(|what| format!("{} says {what}", module.name())).collect::<Vec<_>>()
    };
    engine.flat_map(says).collect()
}

fn sources() -> Vec<Module> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let file = |path: &[String]| {
        let stem = path.iter().fold(src.clone(), |folder, name| folder.join(name));
        let files = [stem.with_extension("rs"), stem.join("mod.rs")];
        files.iter().find_map(|file| fs::read_to_string(file).ok()).expect("it compiles")
    };
    let root = fs::read_to_string(src.join("lib.rs")).unwrap();
    read(&[], root.parse().unwrap(), &file)
}

#[test]
fn imports_run_one_way() {
    let modules = sources();
    for present in LAYERS[..5].concat() {
        assert!(modules.iter().any(|module| module.is_in(present)), "{present} was not read");
    }
    let wrong = misdirected(&modules);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_engine_knows_no_lock_no_clock_and_no_thread() {
    let wrong = impure(&sources());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A crate whose `time::clock` and `engine::queue` are these.
fn crate_with(clock: &str, queue: &str) -> Vec<Module> {
    let root = "mod types; mod time { pub mod clock; } mod engine { pub mod queue; } mod handle; \
        mod pool; mod sync; pub use pool::BudgetPool; pub use types::{usd::Usd, name::{Name}};";
    let file = |path: &[String]| match path.last().map(String::as_str) {
        Some("clock") => clock.to_owned(),
        Some("queue") => queue.to_owned(),
        _ => String::new(),
    };
    read(&[], root.parse().unwrap(), &file)
}

#[test]
fn an_import_that_leads_up_is_seen_however_it_is_written() {
    for up in [
        "use crate::engine::queue::Queue;",
        "use crate::BudgetPool;",
        "use crate::{Usd, BudgetPool as Pool, types};",
        "use crate::{types::usd::Usd, handle::{self, Handle}};",
        "use {std::fmt, crate::pool};",
        "pub(crate) use crate::pool::*;",
        "use crate::*;",
        "use super::super::engine;",
        "fn now() { crate::handle::now::<u8>() }",
        "mod inner { use super::super::super::BudgetPool; }",
        "mod inner { fn now() -> Vec<crate::pool::Pool> { vec![] } }",
        "struct S { #[cfg(unix)] pool: super::super::pool::Pool }",
        "macro_rules! pool { () => { $crate::BudgetPool::new() } }",
        "#[cfg(not(test))] mod inner { use crate::pool; }",
        "#[cfg(test)] use crate::{pool::Pool}; use crate::handle;",
        "#[cfg(test)] #[test] fn now() {} use crate::handle;",
        "use crate::unknown;",
    ] {
        assert_eq!(misdirected(&crate_with(up, "")).len(), 1, "{up}");
    }
    for fine in [
        "use crate::{Usd, Name}; use crate::sync::Mutex;",
        "use super::clock; use self::inner::X; use super::super::types::name::Name;",
        "/// As [`BudgetPool`](crate::BudgetPool).\nstruct Clock; // crate::pool::Pool",
        "#[cfg(test)] mod tests { use crate::BudgetPool; }",
        "#[cfg(all(test, not(loom)))] mod tests { use crate::BudgetPool; }",
        "#[cfg(test)] mod samples; #[cfg(test)] pub(crate) use crate::{pool::Pool};",
        "pub(in crate::pool) fn now() {} pub(crate) fn later() -> &'static str { \"crate::pool\" }",
    ] {
        assert_eq!(misdirected(&crate_with(fine, "")), [""; 0], "{fine}");
    }
    assert_eq!(misdirected(&crate_with("", "use crate::sync::Mutex;")).len(), 1);
}

#[test]
fn what_the_engine_must_not_know_is_seen() {
    for impure_source in [
        "use std::sync::Arc;",
        "use std::sync::atomic::{AtomicU64, Ordering};",
        "fn lock(tree: &parking_lot::RwLock) {}",
        "struct Queue(std::sync::Mutex<u8>);",
        "fn lock(guard: MutexGuard<'_, Tree>) {}",
        "fn now() -> Instant { Instant::now() }",
        "fn now() -> Instant { SharedClock::SYSTEM.now() }",
        "fn wake(waker: Waker) {}",
        "fn end(waker: Waker) { waker.wake() }",
        "fn end(waker: &Waker) { waker.wake_by_ref() }",
        "fn park() { std::thread::park() }",
        "use crate::handle::Handle;",
    ] {
        assert_ne!(impure(&crate_with("", impure_source)), [""; 0], "{impure_source}");
        assert_eq!(impure(&crate_with(impure_source, "")), [""; 0], "{impure_source}");
    }
    let pure = "struct Queue { wakers: Vec<Waker>, at: Instant } // Arc, Mutex, Instant::now()\n\
        #[cfg(test)] mod tests { fn now() -> Instant { Instant::now() } }";
    assert_eq!(impure(&crate_with("", pure)), [""; 0]);
}
