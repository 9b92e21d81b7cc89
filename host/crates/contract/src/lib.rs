//! Host-side bindings of the plugin contract (`wit/`), and nothing else.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

mod generated {
    #![allow(missing_docs, unreachable_pub, unused, clippy::all, clippy::pedantic, reason = "generated")]

    wasmtime::component::bindgen!({
        path: "../../../wit",
        world: "notify:plugin/plugin",
        // Only functions that wait are async. The others are cheaper as plain functions.
        imports: {
            "notify:plugin/http": async,
            "notify:plugin/mail": async,
            "notify:plugin/secrets": async,
        },
        exports: { default: async },
        with: { "notify:plugin/secrets.secret": super::Secret },
    });
}

pub use generated::exports::notify::plugin::{handler, metadata};
pub use generated::notify::plugin::{config, http, log, mail, secrets, types};
pub use generated::{Plugin, PluginPre};

/// The key of an open secret. The sandbox keeps the value in a table of its own, under the same index.
#[derive(Debug)]
pub enum Secret {}
