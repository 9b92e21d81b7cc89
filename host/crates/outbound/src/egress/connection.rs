//! An HTTP/1.1 connection to one origin, one exchange at a time. Its owner drives it: when an exchange is abandoned,
//! its connection is dropped and the socket with it, whatever its state.
//!
//! HTTP/2 is not supported: exchanges of different calls would share a connection, and an abandoned one could not
//! take its connection with it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::egress::body::Body;
use crate::egress::dial::Stream;
use crate::egress::socket::Socket;

/// Maximum bytes of a response's head, and of the trailers of a chunked response.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 128;

pub(super) struct Connection {
    socket: Socket,
    sender: http1::SendRequest<Full<Bytes>>,
    driver: http1::Connection<TokioIo<Stream>, Full<Bytes>>,
}

/// Status and headers of a response.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body was longer than wanted.
    pub is_truncated: bool,
}

/// Why an exchange failed.
pub(super) enum ConnectionError {
    /// Nothing of the request was written yet, so it may be sent elsewhere.
    Unsent(Box<http::Request<Full<Bytes>>>),
    Failed(hyper::Error),
    /// There is a response whose body is refused; a fragment says why.
    UnusableBody(String),
}

impl Connection {
    /// Speaks HTTP over `stream`, which runs over `socket`.
    pub(super) async fn new(socket: Socket, stream: Stream) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self { socket, sender, driver })
    }

    /// Makes one exchange and passes the response's body to `body`. Afterwards [`Self::is_usable`] tells whether the
    /// connection can take another one.
    pub(super) async fn exchange(
        &mut self,
        request: http::Request<Full<Bytes>>,
        body: &mut dyn Body,
    ) -> Result<Head, ConnectionError> {
        let (sender, driver) = (&mut self.sender, &mut self.driver);
        let talk = async {
            let response = sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
                Some(request) => ConnectionError::Unsent(Box::new(request)),
                None => ConnectionError::Failed(error.into_error()),
            })?;
            let (head, mut incoming) = response.into_parts();
            let (mut has_begun, mut is_truncated) = (false, false);
            while let Some(frame) = incoming.frame().await {
                // Trailers are dropped.
                let Ok(data) = frame.map_err(ConnectionError::Failed)?.into_data() else { continue };
                if !std::mem::replace(&mut has_begun, true) {
                    body.begin(&head.headers).map_err(ConnectionError::UnusableBody)?;
                }
                if !body.take(&data) {
                    is_truncated = true;
                    break;
                }
            }
            Ok(Head { status: head.status, headers: head.headers, is_truncated })
        };
        let mut talk = pin!(talk);
        let mut has_ended = false;
        poll_fn(|context| {
            if let Poll::Ready(done) = talk.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            // If the connection ends, the request's own future reports the reason.
            if !has_ended && Pin::new(&mut *driver).poll(context).is_ready() {
                has_ended = true;
            }
            talk.as_mut().poll(context)
        })
        .await
    }

    /// Returns whether the connection is open and idle, with nothing left over from an exchange.
    pub(super) async fn is_usable(&mut self) -> bool {
        self.is_idle().await && self.socket.is_quiet()
    }

    /// Like [`Self::is_usable`], but without asking the system. Good enough for putting a connection into the pool,
    /// since it is checked again before it is used.
    pub(super) async fn is_idle(&mut self) -> bool {
        let driver = &mut self.driver;
        let has_ended = poll_fn(|context| Poll::Ready(Pin::new(&mut *driver).poll(context).is_ready())).await;
        !has_ended && self.sender.is_ready()
    }
}
