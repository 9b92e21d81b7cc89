//! What is generated from the contract, seen from the host.

#![allow(missing_docs, unreachable_pub, unused, clippy::all, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "notify:plugin/plugin",
    imports: { default: async },
    exports: { default: async },
    with: { "notify:plugin/secrets.secret": crate::capability::Secret },
});
