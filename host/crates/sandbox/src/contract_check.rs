//! Checks that a component fits this host: it exports the plugin interfaces, imports only interfaces that the host
//! offers, and uses only enabled features. Each mismatch gets a sentence that names it. The engine has the last word,
//! but its messages are less helpful.

use std::fmt;

use anyhow::{anyhow, bail};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wasmtime::component::Component;

use crate::componentize::{damaged, on_one_line};
use crate::failure::cut;

/// The version of the contract that this host serves; `wit/plugin.wit` has the same.
pub(super) const CONTRACT: Version = Version(0, 1, 0);
const PACKAGE: &str = "notify:plugin";
/// Interfaces that a plugin must export.
const EXPORTS: [&str; 2] = ["metadata", "handler"];
/// Interfaces of the contract that a plugin may import.
const INTERFACES: [&str; 6] = ["types", "log", "config", "secrets", "http", "mail"];
/// Maximum number of names listed in one sentence.
const LISTED_MAX: usize = 3;
/// Maximum bytes shown of one name. A file may have a name of 100 KB.
const NAME_BYTES_MAX: usize = 200;

/// WASI 0.2 interfaces that this host offers.
pub(super) const WASI: [&str; 29] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// Disabled features, and their common names.
const SWITCHED_OFF: [(WasmFeatures, &str); 8] = [
    (WasmFeatures::THREADS, "threads and shared memory"),
    (WasmFeatures::MEMORY64, "64-bit memory"),
    (WasmFeatures::GC, "garbage collection"),
    (WasmFeatures::EXCEPTIONS, "exceptions"),
    (WasmFeatures::LEGACY_EXCEPTIONS, "exceptions"),
    (WasmFeatures::FUNCTION_REFERENCES, "function references"),
    (WasmFeatures::RELAXED_SIMD, "relaxed SIMD"),
    (WasmFeatures::CM_ASYNC, "asynchronous components (WASI 0.3)"),
];

/// Checks the names of the component's imports and exports.
pub(super) fn check_names(component: &[u8]) -> anyhow::Result<()> {
    let names = Names::of(component)?;
    let contract = names.all().filter(|name| name.package() == PACKAGE);
    if let Some(other) = contract.filter_map(|name| name.version).find(|version| !version.is_served_by(CONTRACT)) {
        let cure = if other > CONTRACT {
            format!("update the host, or build the plugin for {CONTRACT}")
        } else {
            format!("build the plugin again, for {CONTRACT}")
        };
        bail!("it was built for version {other} of the contract, and this host has {CONTRACT}: {cure}");
    }
    let missing = EXPORTS.iter().find(|export| !names.exports.iter().any(|name| name.is(PACKAGE, export)));
    if let Some(export) = missing {
        let there = match &*names.exports {
            [] => "it exports nothing".to_owned(),
            exports => format!("it exports {}", listed(exports.iter().map(ToString::to_string))),
        };
        bail!("it does not export {PACKAGE}/{export}, as every plugin must; {there}");
    }
    check_imports(&names.imports)
}

fn check_imports(imports: &[Name]) -> anyhow::Result<()> {
    let is_wasi = |name: &&Name| name.path.starts_with("wasi:");
    if let Some(import) =
        imports.iter().filter(is_wasi).find(|name| name.version.is_some_and(|of| (of.0, of.1) != (0, 2)))
    {
        bail!("it imports {import}, and this host has WASI 0.2: build it for wasm32-wasip2");
    }
    let unknown: Vec<_> = imports.iter().filter(|name| !name.is_offered()).collect();
    // A later addition to the contract, unknown to this host.
    let newer =
        unknown.iter().find(|name| name.version.is_some_and(|version| version > CONTRACT) && name.package() == PACKAGE);
    if let Some(name) = newer {
        bail!("it imports {name}, and this host has {CONTRACT} of the contract, without it: update the host");
    }
    if !unknown.is_empty() {
        bail!(
            "it imports {}, which this host does not offer: plugins have the interfaces of {PACKAGE} and WASI 0.2",
            listed(unknown.iter().map(ToString::to_string))
        );
    }
    Ok(())
}

/// Explains why the engine does not compile a component.
pub(super) fn why_not_compiled(component: &[u8], error: &wasmtime::Error) -> anyhow::Error {
    let is_valid = |features| Validator::new_with_features(features).validate_all(component);
    if let Err(error) = is_valid(WasmFeatures::all()) {
        return damaged(&error, component);
    }
    let used = SWITCHED_OFF.iter().find(|(feature, _)| is_valid(WasmFeatures::all().difference(*feature)).is_err());
    if let Some((_, name)) = used {
        return anyhow!("it uses {name}, which plugins may not: build it without");
    }
    let said = on_one_line(&error.root_cause().to_string());
    anyhow!("it does not compile: {said}")
}

/// Explains why a component does not link although its imports have the right names.
pub(super) fn why_not_linked(component: &Component, error: &wasmtime::Error) -> anyhow::Error {
    let said = on_one_line(&format!("{error:#}"));
    let engine = component.engine();
    let imports = component.component_type().imports(engine).map(|(name, _)| Name::parse(name)).collect::<Vec<_>>();
    let of_contract = imports.iter().filter(|name| name.package() == PACKAGE);
    let newest = of_contract.filter_map(|name| name.version).max();
    match newest {
        Some(version) if version > CONTRACT => anyhow!(
            "it was built for version {version} of the contract, and uses what this host's {CONTRACT} does not have: \
             update the host ({said})"
        ),
        _ => anyhow!("what it imports is of another type than what the host offers: {said}"),
    }
}

/// Explains why a component is not a plugin although its exports have the right names.
pub(super) fn why_not_a_plugin(error: &wasmtime::Error) -> anyhow::Error {
    let said = on_one_line(&format!("{error:#}"));
    anyhow!("what it exports is of another type than {PACKAGE} {CONTRACT} has: {said}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u64, u64, u64);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(['.', '-', '+']).map(|part| part.parse().ok());
        Some(Self(parts.next()??, parts.next()??, parts.next()??))
    }

    /// Returns whether `host` serves this version. Within `0.1` there are only additions; a missing one is found by
    /// its name.
    fn is_served_by(self, host: Self) -> bool {
        (self.0, self.1) == (host.0, host.1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A name like `notify:plugin/log@0.1.0`, or the plain name of a function.
#[derive(Debug)]
struct Name {
    path: String,
    version: Option<Version>,
}

impl Name {
    fn parse(text: &str) -> Self {
        let (path, version) =
            text.split_once('@').map_or((text, None), |(path, version)| (path, Version::parse(version)));
        Self { path: path.to_owned(), version }
    }

    fn package(&self) -> &str {
        self.path.split_once('/').map_or("", |(package, _)| package)
    }

    fn is(&self, package: &str, interface: &str) -> bool {
        self.path.split_once('/') == Some((package, interface))
    }

    fn is_offered(&self) -> bool {
        INTERFACES.iter().any(|interface| self.is(PACKAGE, interface)) || WASI.contains(&&*self.path)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = cut(self.path.clone(), NAME_BYTES_MAX);
        match self.version {
            Some(version) => write!(f, "{path}@{version}"),
            None => write!(f, "{path}"),
        }
    }
}

/// Names of a component's imports and exports.
#[derive(Debug, Default)]
struct Names {
    imports: Vec<Name>,
    exports: Vec<Name>,
}

impl Names {
    fn of(component: &[u8]) -> anyhow::Result<Self> {
        let mut names = Self::default();
        // Nested modules and components have imports and exports of their own.
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(|error| damaged(&error, component))? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        names.imports.push(Name::parse(import.map_err(|error| damaged(&error, component))?.name.name));
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        names.exports.push(Name::parse(export.map_err(|error| damaged(&error, component))?.name.name));
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }

    fn all(&self) -> impl Iterator<Item = &Name> {
        self.imports.iter().chain(&self.exports)
    }
}

/// Lists a few of the names, and how many more there are.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    let listed = names.take(LISTED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}
