//! A guest's standard output and error. They lead into the plugin's log, line by line, within its quota.

use std::pin::Pin;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::capability::log::PluginLog;
use crate::capability::output_lines::StdioStream;

/// Maximum bytes per write call of a guest. A longer text takes several calls.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// One of the two streams of one call.
#[derive(Clone, Debug)]
pub(super) struct GuestStdio {
    log: PluginLog,
    stream: StdioStream,
}

impl GuestStdio {
    pub(super) fn new(log: PluginLog, stream: StdioStream) -> Self {
        Self { log, stream }
    }
}

impl IsTerminal for GuestStdio {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStdio {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 calls this, and the host does not offer it.
        Box::new(tokio::io::sink())
    }
}

impl OutputStream for GuestStdio {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.print(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl Pollable for GuestStdio {
    // The expanded form of an async function of the trait, ready at once.
    fn ready<'life, 'made>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'made>>
    where
        'life: 'made,
        Self: 'made,
    {
        Box::pin(std::future::ready(()))
    }
}
