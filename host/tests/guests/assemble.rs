//! Assembles guests by hand that no compiler would write: core modules that carry their component type, which the host
//! turns into components while loading.

use wit_component::StringEncoding;
use wit_parser::Resolve;

/// The WIT contract.
pub(crate) const CONTRACT: &str = include_str!("../../../wit/plugin.wit");

/// The parts of a guest, as WebAssembly text. Empty parts do nothing, and the default answer to every event is "done".
#[derive(Default)]
pub(crate) struct Guest<'a> {
    /// The name it reports, 5 letters long.
    pub(crate) name: &'a str,
    /// Further imports, which come first.
    pub(crate) imports: &'a str,
    /// Functions, tables, a start function.
    pub(crate) items: &'a str,
    /// Runs when the host calls `describe`.
    pub(crate) describe: &'a str,
    /// Runs for each event. Memory from 512 to 600 holds the answer.
    pub(crate) handle: &'a str,
    /// Runs when the host allocates guest memory for its arguments.
    pub(crate) realloc: &'a str,
}

impl Guest<'_> {
    /// Returns the module's bytes for the current contract.
    pub(crate) fn assemble(&self) -> Vec<u8> {
        self.assemble_for(CONTRACT)
    }

    /// Returns the module's bytes for another version of the contract.
    pub(crate) fn assemble_for(&self, contract: &str) -> Vec<u8> {
        embed(&self.text(version_of(contract)), contract)
    }

    /// Returns the module's text, for callers that modify it.
    #[allow(dead_code, reason = "not every test that includes this does")]
    pub(crate) fn to_text(&self) -> String {
        self.text(version_of(CONTRACT))
    }

    fn text(&self, version: &str) -> String {
        let name = if self.name.is_empty() { "guest" } else { self.name };
        assert_eq!(name.len(), 5, "its length stands in the text below");
        let Self { imports, items, describe, handle, realloc, .. } = self;
        format!(
            r#"(module
                {imports}
                (memory (export "memory") 2)
                (global $next (mut i32) (i32.const 65536))
                (data (i32.const 16) "{name}0.1.0assembled by hand")
                ;; Name, version and description, each as its place and its length.
                (data (i32.const 256) "\10\00\00\00\05\00\00\00\15\00\00\00\05\00\00\00\1a\00\00\00\11\00\00\00")
                {items}
                (func $realloc (export "cabi_realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32)
                    (result i32)
                    (local $at i32)
                    {realloc}
                    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                    (global.set $next (i32.add (local.get $at) (local.get $new)))
                    (block $enough
                        (loop $more
                            (br_if $enough (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
                            (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
                        unreachable)
                    (local.get $at))
                (func (export "notify:plugin/metadata@{version}#describe") (result i32)
                    {describe}
                    (i32.const 256))
                (func (export "notify:plugin/handler@{version}#handle") (param $in i32) (result i32)
                    {handle}
                    (i32.const 512)))"#
        )
    }
}

fn version_of(contract: &str) -> &str {
    contract.split("package notify:plugin@").nth(1).and_then(|rest| rest.split(';').next()).expect("a version")
}

/// Compiles a module and embeds the component type of the world `plugin`.
pub(crate) fn embed(text: &str, contract: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", contract).expect("the contract parses");
    let world = resolve.select_world(&[package], Some("plugin")).expect("the world");
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("it embeds");
    module
}
