//! What is generated from the contract, seen from the host.

#![allow(missing_docs, unreachable_pub, unused, clippy::all, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "notify:plugin/plugin",
    // Those that wait for something; the others cost less as plain functions.
    imports: {
        "notify:plugin/http": async,
        "notify:plugin/mail": async,
        "notify:plugin/secrets": async,
    },
    exports: { default: async },
    with: { "notify:plugin/secrets.secret": crate::capability::Secret },
});
