//! The modules of one crate and which of them use each other, drawn from the sources.
//!
//! An edge leads from a module to a sibling whose items it uses. Re-exports are followed to the module that has the item.
//! Parents and children may know each other, and tests may know everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use syn::visit::{self, Visit};

/// Re-exports of re-exports that are followed.
const DEPTH_MAX: usize = 16;

/// The place of a module in its crate: the names from the root on.
type ModulePath = Vec<String>;

/// All modules of one crate.
#[derive(Debug, Default)]
pub(super) struct Modules(BTreeMap<ModulePath, Module>);

#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    /// Names that `use` declarations bring in, with the path that each stands for.
    names: BTreeMap<String, Vec<String>>,
    /// Paths of which all names are brought in.
    globs: Vec<Vec<String>>,
    /// All paths that begin with `crate`, `self` or `super`, made absolute.
    uses: BTreeSet<Vec<String>>,
}

/// One module uses an item of its sibling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    from: ModulePath,
    to: ModulePath,
    file: PathBuf,
    item: String,
}

impl Modules {
    /// Reads the modules of the crate with this root, `lib.rs` or `main.rs`.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut modules = Self::default();
        modules.load(root, &[])?;
        Ok(modules)
    }

    fn load(&mut self, file: &Path, path: &[String]) -> anyhow::Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let children = self.add(file, path.to_vec(), &text)?;
        let stem = file.file_stem().unwrap_or_default();
        let folder = file.parent().unwrap_or_else(|| Path::new(""));
        // The modules of `a/mod.rs`, `a/lib.rs` and `a/main.rs` are in `a`, those of `a.rs` in `a` beside it.
        let folder =
            if ["mod", "lib", "main"].iter().any(|name| stem == *name) { folder.to_owned() } else { folder.join(stem) };
        for child in children {
            let files = [folder.join(format!("{child}.rs")), folder.join(&child).join("mod.rs")];
            if let Some(file) = files.iter().find(|file| file.is_file()) {
                self.load(file, &[path, &[child]].concat())?;
            }
        }
        Ok(())
    }

    /// Takes in one file, and returns the modules that it declares.
    fn add(&mut self, file: &Path, path: ModulePath, text: &str) -> anyhow::Result<Vec<String>> {
        let parsed = syn::parse_file(text).with_context(|| format!("cannot read {} as Rust", file.display()))?;
        let mut reader =
            Reader { path: &path, module: Module { file: file.to_owned(), ..Module::default() }, children: Vec::new() };
        reader.visit_file(&parsed);
        let Reader { module, children, .. } = reader;
        self.0.insert(path, module);
        Ok(children)
    }

    /// The module that has the item with this absolute path.
    fn home(&self, item: &[String], depth: usize) -> ModulePath {
        let mut home = Vec::new();
        for (at, name) in item.iter().enumerate() {
            let child = [home.clone(), vec![name.clone()]].concat();
            if self.0.contains_key(&child) {
                home = child;
                continue;
            }
            let Some(module) = self.0.get(&home).filter(|_| depth < DEPTH_MAX) else { return home };
            let rest = &item[at + 1..];
            if let Some(target) = module.names.get(name).filter(|target| **target != item[..=at]) {
                return self.home(&[target, rest].concat(), depth + 1);
            }
            for glob in &module.globs {
                let found = self.home(&[glob.as_slice(), &item[at..]].concat(), depth + 1);
                if found != home && found != *glob {
                    return found;
                }
            }
            return home;
        }
        home
    }

    pub(super) fn edges(&self) -> Vec<Edge> {
        let mut edges = BTreeSet::new();
        for (from, module) in &self.0 {
            for used in &module.uses {
                let to = self.home(used, 0);
                let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                if common == from.len() || common == to.len() {
                    continue;
                }
                let (from, to) = (from[..=common].to_vec(), to[..=common].to_vec());
                edges.insert(Edge { from, to, file: module.file.clone(), item: used.join("::") });
            }
        }
        edges.into_iter().collect()
    }

    /// Each circle of siblings: its modules, and the edges within it.
    pub(super) fn circles(&self) -> Vec<(Vec<ModulePath>, Vec<Edge>)> {
        let edges = self.edges();
        let mut reached: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = BTreeMap::new();
        for Edge { from, to, .. } in &edges {
            reached.entry(from).or_default().insert(to);
        }
        // The modules of one crate are few: whatever can be reached is found by adding until nothing is new.
        loop {
            let mut more = Vec::new();
            for (from, to) in &reached {
                let beyond = to.iter().filter_map(|to| reached.get(*to)).flatten();
                more.extend(beyond.filter(|beyond| !to.contains(*beyond)).map(|beyond| (*from, *beyond)));
            }
            if more.is_empty() {
                break;
            }
            for (from, to) in more {
                reached.entry(from).or_default().insert(to);
            }
        }
        let leads = |from: &ModulePath, to: &ModulePath| reached.get(from).is_some_and(|all| all.contains(to));
        let mut circles: Vec<(Vec<ModulePath>, Vec<Edge>)> = Vec::new();
        for module in reached.keys().filter(|module| leads(module, module)) {
            if circles.iter().any(|(members, _)| members.contains(module)) {
                continue;
            }
            let members: Vec<_> = reached
                .keys()
                .filter(|other| leads(module, other) && leads(other, module))
                .map(|it| (*it).clone())
                .collect();
            let within = edges.iter().filter(|edge| members.contains(&edge.from) && members.contains(&edge.to));
            let within = within.cloned().collect();
            circles.push((members, within));
        }
        circles
    }
}

/// A sentence about each circle, with the files and the items that close it.
pub(super) fn faults(krate: &str, root: &Path, base: &Path) -> anyhow::Result<Vec<String>> {
    let circles = Modules::read(root)?.circles();
    let told = circles.into_iter().map(|(members, edges)| {
        let names: Vec<_> = members.iter().map(|member| member.join("::")).collect();
        let mut told = format!("{krate}: the modules {} use each other in a circle:", names.join(", "));
        let mut seen = BTreeSet::new();
        for Edge { from, to, file, item } in edges {
            // One example for each direction is enough to find it.
            if seen.insert((from.clone(), to.clone())) {
                let file = file.strip_prefix(base).unwrap_or(&file).display();
                let (from, to) = (from.join("::"), to.join("::"));
                // Writing to a String does not fail.
                let _ = write!(told, "\n    {from} → {to}: {file} uses {item}");
            }
        }
        told
    });
    Ok(told.collect())
}

/// Collects what one file declares and uses.
struct Reader<'p> {
    path: &'p [String],
    module: Module,
    children: Vec<String>,
}

impl Reader<'_> {
    /// The path from the crate's root, if it leads into this crate.
    fn absolute(&self, segments: &[String]) -> Option<Vec<String>> {
        let (first, rest) = segments.split_first()?;
        let mut base = match first.as_str() {
            "crate" => return Some(rest.to_vec()),
            "self" => self.path.to_vec(),
            "super" => self.path.split_last()?.1.to_vec(),
            _ => return None,
        };
        let mut rest = rest;
        while let Some((first, beyond)) = rest.split_first().filter(|(first, _)| *first == "super") {
            debug_assert_eq!(first, "super");
            base.pop()?;
            rest = beyond;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    fn note(&mut self, segments: &[String]) {
        if let Some(path) = self.absolute(segments) {
            self.module.uses.insert(path);
        }
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
            syn::UseTree::Glob(_) => {
                if let Some(path) = self.absolute(before) {
                    self.module.globs.push(path);
                }
                self.note(before);
            }
            syn::UseTree::Name(name) => {
                let path = if name.ident == "self" { before.to_vec() } else { with(&name.ident) };
                let own = path.last().cloned().unwrap_or_default();
                self.bring_in(own, &path);
            }
            syn::UseTree::Rename(rename) => self.bring_in(rename.rename.to_string(), &with(&rename.ident)),
        }
    }

    fn bring_in(&mut self, name: String, path: &[String]) {
        self.note(path);
        if let Some(path) = self.absolute(path) {
            self.module.names.insert(name, path);
        }
    }

    /// Paths in the arguments of a macro, which are tokens.
    fn tokens(&mut self, tokens: &str) {
        let mut words = tokens.split_whitespace().peekable();
        while let Some(word) = words.next() {
            if !matches!(word.trim_start_matches(['(', '[', '{', '&']), "crate" | "super" | "self") {
                continue;
            }
            let mut path = vec![word.trim_start_matches(['(', '[', '{', '&']).to_owned()];
            while words.next_if_eq(&"::").is_some() {
                path.extend(words.next().map(|name| name.trim_end_matches([')', ',', ';', '(']).to_owned()));
            }
            if path.len() > 1 {
                self.note(&path);
            }
        }
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test")))
    })
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[syn::Attribute] = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Type(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if is_for_tests(attributes) {
            return;
        }
        match item {
            syn::Item::Mod(item) if item.content.is_none() => self.children.push(item.ident.to_string()),
            syn::Item::Use(item) => self.tree(&item.tree, &[]),
            item => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.note(&segments);
        }
        visit::visit_path(self, path);
    }

    // Where something may be seen from is no use of that module.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.tokens(&item.tokens.to_string());
        visit::visit_macro(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a crate of these files, as the names of their modules.
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let mut modules = Modules::default();
        for (path, text) in files {
            let path = path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            modules.add(Path::new("x.rs"), path, text).unwrap();
        }
        let name = |module: &ModulePath| module.join("::");
        modules.circles().iter().map(|(members, _)| members.iter().map(name).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn siblings_that_use_each_other_are_a_circle() {
        let lib = ("", "mod a; mod b;");
        assert_eq!(circles(&[lib, ("a", "use crate::b::B;"), ("b", "pub struct B;")]), [""; 0]);
        assert_eq!(circles(&[lib, ("a", "use crate::b::B;"), ("b", "fn f() { super::a::f() }")]), ["a b"]);
        assert_eq!(circles(&[lib, ("a", "use crate::b::B;"), ("b", "fn f() { log!(1, crate::a::f()) }")]), ["a b"]);
    }

    #[test]
    fn re_exports_are_followed() {
        let lib = ("", "mod a; mod b; pub use crate::b::B; pub use a::*;");
        assert_eq!(circles(&[lib, ("a", "use crate::B;"), ("b", "use crate::a::A;")]), ["a b"]);
        assert_eq!(circles(&[lib, ("a", "use super::B as C;"), ("b", "use crate::a::{self, A};")]), ["a b"]);
        assert_eq!(circles(&[lib, ("a", "use crate::B;"), ("b", "pub struct B;")]), [""; 0]);
    }

    #[test]
    fn a_circle_may_be_long_and_lie_in_folders() {
        let files = [
            ("", "mod a; mod b; mod c;"),
            ("a", "mod deep;"),
            ("a::deep", "use crate::b::B;"),
            ("b", "use crate::c::C;"),
            ("c", "use crate::a::A;"),
        ];
        assert_eq!(circles(&files), ["a b c"]);
    }

    #[test]
    fn parents_children_and_tests_do_not_count() {
        let files = [
            ("", "mod a; mod b; fn f() {}"),
            ("a", "mod c; use c::C; fn f() { crate::f() }"),
            ("a::c", "use super::f; #[cfg(test)] mod tests { use crate::b::B; } #[cfg(test)] fn t() { crate::b::f() }"),
            ("b", "use crate::a::A;"),
        ];
        assert_eq!(circles(&files), [""; 0]);
    }
}
