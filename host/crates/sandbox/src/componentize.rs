//! Recognises the format of a plugin's file, and turns core modules into components.

use std::borrow::Cow;

use anyhow::{anyhow, bail};
use wasmparser::{Parser, Payload};

use crate::failure::cut;

/// Maximum bytes of an engine's message that are shown.
const SAID_BYTES_MAX: usize = 4 << 10;

#[derive(Debug, PartialEq, Eq)]
enum FileFormat {
    Component,
    CoreModule,
    Other(&'static str),
}

const WANTED: &str = "a plugin is a WebAssembly component that exports the world notify:plugin/plugin";

/// Returns the component in the file, or builds it from a core module. The error is a sentence without the file's
/// name.
pub(super) fn component_of(content: &[u8]) -> anyhow::Result<Cow<'_, [u8]>> {
    match FileFormat::of(content) {
        FileFormat::Component => Ok(Cow::Borrowed(content)),
        FileFormat::CoreModule => componentize(content).map(Cow::Owned),
        FileFormat::Other(what) => bail!("{what}; {WANTED}"),
    }
}

/// Checks only that the file begins like a component or a core module.
pub(super) fn check_beginning(content: &[u8]) -> anyhow::Result<()> {
    match FileFormat::of(content) {
        FileFormat::Component | FileFormat::CoreModule => Ok(()),
        FileFormat::Other(what) => bail!("{what}; {WANTED}"),
    }
}

impl FileFormat {
    /// Recognises the format from the first bytes
    /// (<https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md>).
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => Self::CoreModule,
            [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => Self::Component,
            [b'\0', b'a', b's', b'm', _, _, _, _, ..] => Self::Other("it is of an unknown WebAssembly version"),
            [] => Self::Other("it is empty"),
            [b'\0', b'a', b's', b'm', ..] => Self::Other("it is cut off"),
            // The OS/ABI byte that wasmtime writes into compiled code.
            [0x7f, b'E', b'L', b'F', _, _, _, 200, ..] => {
                Self::Other("it is compiled for this machine already, and only what the host itself compiles is run")
            }
            [0x7f, b'E', b'L', b'F', ..] | [b'M', b'Z', ..] | [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => {
                Self::Other("it is a program for this machine, not WebAssembly")
            }
            [0x1f, 0x8b, ..] | [b'P', b'K', 3, 4, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                Self::Other("it is packed: unpack it first")
            }
            other => Self::of_text(other),
        }
    }

    fn of_text(bytes: &[u8]) -> Self {
        let text = bytes.trim_ascii_start();
        // A text file may begin with a comment.
        let begins_as_wat = text.starts_with(b"(module") || text.starts_with(b"(component") || text.starts_with(b";;");
        if begins_as_wat {
            Self::Other("it is WebAssembly as text: turn it into binary form with `wasm-tools parse`")
        } else if text.starts_with(b"version https://git-lfs") {
            Self::Other("it is a pointer of Git LFS in place of the file: fetch it with `git lfs pull`")
        } else if text.starts_with(b"<") {
            Self::Other("it is a web page or XML, not WebAssembly: perhaps a download that went wrong")
        } else {
            Self::Other("it is not WebAssembly")
        }
    }
}

/// Turns a core module with an embedded component type, as `wasm32-unknown-unknown` builds it, into a component. A
/// module built for WASI preview 1 gets the adapter to preview 2.
fn componentize(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    use wasi_preview1_component_adapter_provider as preview1;
    let (name, adapter) =
        (preview1::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, preview1::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER);
    check_contents(module)?;
    wit_component::ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.adapter(name, adapter)?.validate(true).encode())
        .map_err(|error| {
            let said = on_one_line(&format!("{error:#}"));
            anyhow!("it is a core module that cannot be made a component: {said}")
        })
}

/// Checks that the module is intact and carries a component type.
fn check_contents(module: &[u8]) -> anyhow::Result<()> {
    let mut has_component_type = false;
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CustomSection(section) = payload.map_err(|error| damaged(&error, module))? {
            has_component_type |= section.name().starts_with("component-type");
        }
    }
    if !has_component_type {
        bail!(
            "it is a core module without a component type: build it for wasm32-wasip2, or make its bindings from the \
             contract with wit-bindgen"
        );
    }
    Ok(())
}

/// Explains a file that does not even parse.
pub(super) fn damaged(error: &wasmparser::BinaryReaderError, bytes: &[u8]) -> anyhow::Error {
    if error.message().contains("unexpected end") {
        return anyhow!("it is cut off after {} bytes: copy it again", bytes.len());
    }
    anyhow!("it is damaged at byte {}: {}", error.offset(), on_one_line(error.message()))
}

/// Puts an engine's message on one line of bounded length, to be part of a sentence.
pub(super) fn on_one_line(text: &str) -> String {
    cut(text.split_whitespace().collect::<Vec<_>>().join(" "), SAID_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_how_it_begins() {
        assert_eq!(FileFormat::of(b"\0asm\x01\0\0\0"), FileFormat::CoreModule);
        assert_eq!(FileFormat::of(b"\0asm\x0d\0\x01\0more"), FileFormat::Component);
        for (bytes, what) in [
            (&b""[..], "it is empty"),
            (b"\0asm\x01", "it is cut off"),
            (b"\0asm\x01\0\x09\0", "it is of an unknown WebAssembly version"),
            (b"\x7fELF...", "it is a program for this machine, not WebAssembly"),
            (b"MZ\x90", "it is a program for this machine, not WebAssembly"),
            (b"\x7fELF\x02\x01\x01\xc8", "it is compiled for this machine already"),
            (b"\x1f\x8b\x08", "it is packed"),
            (b"\n ;; a plugin\n(module)", "it is WebAssembly as text"),
            (b"(component)", "it is WebAssembly as text"),
            (b"<!DOCTYPE html>", "it is a web page"),
            (b"version https://git-lfs.github.com/spec/v1", "it is a pointer of Git LFS"),
            (b"hello", "it is not WebAssembly"),
        ] {
            let FileFormat::Other(said) = FileFormat::of(bytes) else { panic!("{bytes:?} is WebAssembly") };
            assert!(said.starts_with(what), "{said}");
        }
    }
}
