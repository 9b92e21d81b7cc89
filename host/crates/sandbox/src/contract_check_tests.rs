//! Files that do not load, and the message that each of them gets.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use config::PluginConfig;
use state::digest::Digest;
use wasmtime::component::Component;

use crate::assemble::{CONTRACT, Guest, embed};
use crate::{Engine, Loader, contract_check, instance};

/// Loads files and returns the host's messages about them.
struct Checker {
    runtime: tokio::runtime::Runtime,
    loader: Loader,
}

impl Checker {
    fn new() -> Self {
        let loader =
            Loader::new(Engine::new().unwrap(), None, crate::capability::HostServices::default(), None).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self { runtime, loader }
    }

    fn says(&self, bytes: &[u8]) -> String {
        let loaded = self.loader.load_content("p", bytes, Digest::of(bytes), PluginConfig::default());
        match self.runtime.block_on(loaded) {
            Ok(plugin) => format!("loaded {}", plugin.info.version),
            Err(error) => format!("{error:#}"),
        }
    }

    fn check(&self, what: &str, bytes: &[u8], expected: &str) {
        let said = self.says(bytes);
        assert!(said.contains(expected), "{what}: expected {expected:?}, got {said:?}");
        assert!(!said.contains('\n'), "{what}: one line, got {said:?}");
    }
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// Returns the same plugin as a core module and as a component.
pub(super) fn good() -> [Vec<u8>; 2] {
    let module = Guest::default().assemble();
    let component = wit_component::ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
    [module, component]
}

/// Builds a component with the exports of a plugin, all empty, and additional items.
fn hollow(first: &str, last: &str) -> Vec<u8> {
    wat(&format!(
        r#"(component {first} (instance $i) (export "notify:plugin/metadata@0.1.0" (instance $i))
        (export "notify:plugin/handler@0.1.0" (instance $i)) {last})"#
    ))
}

#[test]
fn a_file_of_another_form_is_told_what_it_is() {
    let checker = Checker::new();
    let [module, component] = good();
    checker.check("a module", &module, "loaded 0.1.0");
    checker.check("a component", &component, "loaded 0.1.0");
    let mut damaged = component.clone();
    damaged[40] ^= 0xff;
    let without_exports = embed(r#"(module (memory (export "memory") 1))"#, CONTRACT);
    for (what, bytes, expected) in [
        ("empty", &b""[..], "it is empty; a plugin is a WebAssembly component that exports"),
        ("text", b"(component)", "it is WebAssembly as text: turn it into binary form with"),
        ("cut off in its head", &module[..6], "it is cut off"),
        ("a module that is cut off", &module[..module.len() / 2], "it is cut off after"),
        ("a component that is cut off", &component[..component.len() / 2], "it is cut off after"),
        ("damaged", &damaged, "it is damaged at byte"),
        ("no component type", &wat("(module)"), "it is a core module without a component type: build it for"),
        ("no exports", &without_exports, "it is a core module that cannot be made a component: "),
    ] {
        checker.check(what, bytes, expected);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.wasm");
    fs::File::create(&file).unwrap().set_len(100 << 20).unwrap();
    assert_eq!(format!("{:#}", Loader::read(&file).unwrap_err()), "cannot read it: it has more than 64 MiB");
}

#[test]
fn a_component_of_another_world_is_told_what_is_missing() {
    let checker = Checker::new();
    let other_type = CONTRACT.replace("    describe: func() -> plugin-info;", "    describe: func() -> string;");
    let command = wat(r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#);
    let half = wat(r#"(component (instance $i) (export "notify:plugin/metadata@0.1.0" (instance $i)))"#);
    let missing = "it does not export notify:plugin/metadata, as every plugin must; it exports ";
    let wrong_type = "what it exports is of another type than notify:plugin 0.1.0 has: ";
    for (what, bytes, expected) in [
        ("no exports", wat("(component)"), format!("{missing}nothing")),
        ("a command", command, format!("{missing}wasi:cli/run@0.2.0")),
        ("half a plugin", half, "it does not export notify:plugin/handler".to_owned()),
        ("empty exports", hollow("", ""), wrong_type.to_owned()),
        ("wrong types", Guest::default().assemble_for(&other_type), wrong_type.to_owned()),
    ] {
        checker.check(what, &bytes, &expected);
    }
}

#[test]
fn however_long_its_names_are_the_sentence_about_a_file_is_of_a_sensible_size() {
    let checker = Checker::new();
    let long = "a".repeat(99_000);
    let exports: String = ["x", "y", "z"].map(|last| format!(r#"(export "{long}{last}" (instance $i))"#)).concat();
    let import = format!(r#"(import "a:{long}/b" (instance))"#);
    let of_another_type = format!(r#"(import "notify:plugin/log@0.1.0" (instance (export "{long}" (func))))"#);
    for (bytes, expected) in [
        (wat(&format!("(component (instance $i) {exports})")), "it does not export notify:plugin/metadata"),
        (hollow(&import, ""), "it imports a:aaa"),
        (hollow(&of_another_type, ""), "what it imports is of another type than what the host offers: "),
    ] {
        checker.check(expected, &bytes, expected);
        let said = checker.says(&bytes);
        assert!(said.len() < 5_000, "{expected}: {} bytes", said.len());
    }
}

#[test]
fn a_plugin_of_another_contract_is_told_which_version_is_too_new() {
    let checker = Checker::new();
    let of = |version: &str| CONTRACT.replace("notify:plugin@0.1.0", &format!("notify:plugin@{version}"));
    let patched = of("0.1.7");
    let flush = patched.replace("    enabled: func(", "    flush: func();\n    enabled: func(");
    let sms =
        patched.replace("    import mail;", "    import mail;\n    import sms;") + "interface sms { send: func(); }";
    let calling =
        |imports, contract: &str| Guest { imports, describe: "call $added", ..Guest::default() }.assemble_for(contract);
    for (bytes, expected) in [
        (
            Guest::default().assemble_for(&of("0.2.0")),
            "it was built for version 0.2.0 of the contract, and this host has 0.1.0: update the host, or build the \
             plugin for 0.1.0",
        ),
        (
            Guest::default().assemble_for(&of("0.0.9")),
            "0.0.9 of the contract, and this host has 0.1.0: build the plugin again, for 0.1.0",
        ),
        (Guest::default().assemble_for(&patched), "loaded 0.1.0"),
        (
            calling(r#"(import "notify:plugin/log@0.1.7" "flush" (func $added))"#, &flush),
            "it was built for version 0.1.7 of the contract, and uses what this host's 0.1.0 does not have: update",
        ),
        (
            calling(r#"(import "notify:plugin/sms@0.1.7" "send" (func $added))"#, &sms),
            "it imports notify:plugin/sms@0.1.7, and this host has 0.1.0 of the contract, without it: update the host",
        ),
    ] {
        checker.check(expected, &bytes, expected);
    }
}

#[test]
fn an_import_that_is_not_offered_is_named() {
    let checker = Checker::new();
    let many = ["a:b/c", "a:b/d", "a:b/e", "a:b/f"].map(|name| format!(r#"(import "{name}" (instance))"#)).concat();
    let wrong = r#"(import "notify:plugin/log@0.1.0" (instance (export "enabled" (func))))"#;
    for (imports, expected) in [
        (
            r#"(import "acme:fax/send@1.0.0" (instance))"#,
            "it imports acme:fax/send@1.0.0, which this host does not offer",
        ),
        (r#"(import "send" (func))"#, "it imports send, which this host does not offer"),
        (&many, "it imports a:b/c, a:b/d, a:b/e and 1 more, which"),
        (r#"(import "wasi:cli/stdout@0.3.0" (instance))"#, "wasi:cli/stdout@0.3.0, and this host has WASI 0.2: build"),
        (
            r#"(import "wasi:http/incoming-handler@0.2.0" (instance))"#,
            "wasi:http/incoming-handler@0.2.0, which this host does not offer: plugins have the interfaces of",
        ),
        (wrong, "what it imports is of another type than what the host offers: "),
    ] {
        checker.check(expected, &hollow(imports, ""), expected);
    }
}

#[test]
fn a_feature_that_is_switched_off_is_named() {
    let checker = Checker::new();
    let memory = |number| format!("(core module $m{number} (memory 1)) (core instance (instantiate $m{number}))");
    let memories = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(memory).concat();
    for (items, expected) in [
        ("(core module (memory 1 1 shared))", "it uses threads and shared memory, which plugins may not"),
        ("(core module (memory i64 1))", "it uses 64-bit memory, which plugins may not"),
        ("(core module (type (struct (field i32))))", "it uses garbage collection, which plugins may not"),
        ("(core module (tag))", "it uses exceptions, which plugins may not"),
        (&memories, "perhaps it is larger than the sandbox, which has 32 core modules, 8 memories and 16 tables"),
    ] {
        checker.check(expected, &hollow("", items), expected);
    }
}

#[test]
fn a_file_that_is_cut_off_is_told_so_wherever_it_is_and_a_damaged_one_hurts_nobody() {
    let checker = Checker::new();
    let [module, component] = good();
    for file in [&module, &component] {
        for length in (0..file.len()).step_by(37) {
            checker.check(&format!("cut off at {length}"), &file[..length], "it ");
        }
    }
    // Damaged component types of core modules are not tested here. Their parser can overflow the stack, so it runs in
    // a process of its own.
    for at in (0..component.len()).step_by(7) {
        let mut damaged = component.clone();
        damaged[at] ^= 0x55;
        assert!(!checker.says(&damaged).is_empty());
    }
}

/// Returns the folders with the WIT files of the WASI libraries: one for HTTP, and one for the rest.
fn wit_of_wasi() -> [PathBuf; 2] {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        // Packages for other platforms may be missing.
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", "host-tuple", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    [("wasmtime-wasi", "src/p2/wit/deps"), ("wasmtime-wasi-http", "wit/deps")].map(|(name, folder)| {
        let package = packages.iter().find(|package| package["name"] == name).unwrap();
        Path::new(package["manifest_path"].as_str().unwrap()).with_file_name(folder)
    })
}

/// Returns every WASI interface that a plugin may import, with its stable functions.
fn wasi() -> BTreeMap<String, Vec<String>> {
    let [most, http] = wit_of_wasi();
    let mut interfaces = imports_of(&most, "cli");
    interfaces.extend(imports_of(&http, "http"));
    interfaces
}

/// Returns the interfaces in the world `imports` of a package.
fn imports_of(folder: &Path, package: &str) -> BTreeMap<String, Vec<String>> {
    let mut resolve = wit_parser::Resolve::default();
    let mut groups: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            wit_parser::UnresolvedPackageGroup::parse(path, &text).map_err(|(_, error)| error).unwrap()
        })
        .collect();
    let main = groups.iter().position(|group| group.main.name.name == package).unwrap();
    let main = groups.remove(main);
    let package = resolve.push_groups(main, groups).unwrap();
    let world = resolve.select_world(&[package], Some("imports")).unwrap();
    let mut interfaces = BTreeMap::new();
    for (key, item) in &resolve.worlds[world].imports {
        let wit_parser::WorldItem::Interface { id, .. } = item else { panic!("{key:?} is no interface") };
        let name = resolve.id_of(*id).unwrap();
        let functions = resolve.interfaces[*id].functions.values();
        let stable = functions.filter(|function| !matches!(function.stability, wit_parser::Stability::Unstable { .. }));
        let names = stable.map(|function| function.name.clone()).collect();
        interfaces.insert(name.split('@').next().unwrap().to_owned(), names);
    }
    interfaces
}

#[test]
fn the_list_of_wasi_is_all_that_the_library_offers() {
    let interfaces: Vec<_> = wasi().into_keys().collect();
    assert_eq!(interfaces, contract_check::WASI);

    let engine = Engine::new().unwrap();
    let linker = instance::linker(&engine).unwrap();
    for interface in contract_check::WASI {
        let importing = wat(&format!(r#"(component (import "{interface}@0.2.0" (instance)))"#));
        let component = Component::new(&engine.wasmtime, &importing).unwrap();
        assert!(linker.instantiate_pre(&component).is_ok(), "{interface} is listed and not offered");
    }
}

#[test]
fn the_contract_is_the_version_that_its_text_says() {
    assert!(CONTRACT.contains(&format!("package notify:plugin@{};", contract_check::CONTRACT)));
}

const SANDBOX: &str = include_str!("../../../../docs/sandbox.md");

/// Another test compares a plugin's actual answers with the same table.
#[test]
fn what_a_plugin_finds_is_documented_function_by_function() {
    for (interface, functions) in wasi() {
        let row = SANDBOX.lines().find_map(|line| line.strip_prefix(&format!("| `{interface}` |")));
        let row = row.unwrap_or_else(|| panic!("{interface} has no row"));
        let (answers, out_of_reach) = row.trim_end_matches('|').split_once('|').unwrap();
        let answered = |name: &str| answers.split("; ").any(|answer| answer.trim().starts_with(&format!("{name}: ")));
        let is_out_of_reach = |name: &str| out_of_reach.split(", ").any(|what| what.trim() == name);
        for function in functions {
            // `[method]pollable.ready` belongs to the resource `pollable`.
            let name = function.split_once(']').map_or(&*function, |(_, name)| name);
            let of = name.split('.').next().unwrap();
            assert!(answered(name) || is_out_of_reach(of), "{interface} {name} is not in the table");
        }
    }
}
