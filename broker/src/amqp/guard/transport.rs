//! The guard as a stream for lapin, and the runtime that creates guarded streams.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::AsyncTcpStream;

use crate::amqp::guard::filter::Filter;

const READ_BYTES: usize = 64 << 10;

/// A connection to a broker, with or without TLS, whose frames lapin can read.
pub(in crate::amqp) struct Guarded {
    stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>,
    filter: Filter,
    read: Box<[u8]>,
}

impl Guarded {
    pub(in crate::amqp) fn new(stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>) -> Self {
        Self { stream, filter: Filter::default(), read: vec![0; READ_BYTES].into() }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { stream, filter, read } = self.get_mut();
        loop {
            let unread = filter.unread();
            if !unread.is_empty() {
                let count = unread.len().min(buffer.len());
                buffer[..count].copy_from_slice(&unread[..count]);
                filter.mark_read(count);
                return Poll::Ready(Ok(count));
            }
            let count = ready!(Pin::new(&mut *stream).poll_read(cx, read))?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            filter.push(&read[..count])?;
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

/// Tokio with guarded streams.
pub(in crate::amqp) type GuardedRuntime = Runtime<RuntimeParts<Tokio, GuardedReactor>>;

pub(in crate::amqp) fn guarded_runtime() -> GuardedRuntime {
    Runtime::new(RuntimeParts::new(Tokio::current(), GuardedReactor(Tokio::current())))
}

/// lapin derives the type of a stream from the reactor that creates it. This reactor creates
/// Tokio's streams, guarded.
#[derive(Clone)]
pub(in crate::amqp) struct GuardedReactor(Tokio);

impl fmt::Debug for GuardedReactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GuardedReactor").finish_non_exhaustive()
    }
}

impl Reactor for GuardedReactor {
    type TcpStream = Guarded;
    type Sleep = <Tokio as Reactor>::Sleep;

    // The trait's own bound has no public name; on Unix it stands for `AsFd` and `AsRawFd`.
    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<Guarded>> + Send + 'static {
        let connect = self.0.tcp_connect_addr(address);
        async move { Ok(Guarded::new(AsyncTcpStream::Plain(connect.await?))) }
    }
}
