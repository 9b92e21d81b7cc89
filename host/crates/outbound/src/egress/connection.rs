//! A connection speaks HTTP/1.1 with one origin, one exchange at a time. Whoever has it in hand drives it: when an
//! exchange is given up, its connection is dropped, and with it the socket, whatever state it is in.
//!
//! HTTP/2 is not spoken: many exchanges of different calls would share a connection, and one that is given up could
//! not take its connection with it.

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

/// Of a response's head; and of the trailers of one in chunks.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 128;

pub(super) struct Connection {
    socket: Socket,
    sender: http1::SendRequest<Full<Bytes>>,
    driver: http1::Connection<TokioIo<Stream>, Full<Bytes>>,
}

/// Status and headers of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// There was more of the body than was wanted.
    pub is_truncated: bool,
}

/// An exchange that failed.
pub(super) enum Broken {
    /// Before anything of the request was written: it may be sent elsewhere.
    Unsent(Box<http::Request<Full<Bytes>>>),
    Failed(hyper::Error),
    /// There is an answer whose body cannot be taken; a fragment says why.
    UnmatchedTypes(String),
}

impl Connection {
    /// `stream` is what is spoken over `socket`.
    pub(super) async fn new(socket: Socket, stream: Stream) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self { socket, sender, driver })
    }

    /// One exchange, whose answer's body goes to `body`. Whether the connection can take another one is
    /// for [`Self::is_usable`] to say.
    pub(super) async fn exchange(
        &mut self,
        request: http::Request<Full<Bytes>>,
        body: &mut dyn Body,
    ) -> Result<Head, Broken> {
        let (sender, driver) = (&mut self.sender, &mut self.driver);
        let talk = async {
            let response = sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
                Some(request) => Broken::Unsent(Box::new(request)),
                None => Broken::Failed(error.into_error()),
            })?;
            let (head, mut incoming) = response.into_parts();
            let (mut has_begun, mut is_truncated) = (false, false);
            while let Some(frame) = incoming.frame().await {
                // Trailers are left out.
                let Ok(data) = frame.map_err(Broken::Failed)?.into_data() else { continue };
                if !std::mem::replace(&mut has_begun, true) {
                    body.begin(&head.headers).map_err(Broken::UnmatchedTypes)?;
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
            // How it ends is told to the one who talks.
            if !has_ended && Pin::new(&mut *driver).poll(context).is_ready() {
                has_ended = true;
            }
            talk.as_mut().poll(context)
        })
        .await
    }

    /// Whether it is open, idle, and has nothing left over from an exchange.
    pub(super) async fn is_usable(&mut self) -> bool {
        self.is_idle().await && self.socket.is_quiet()
    }

    /// The same, as far as is known without asking the system: what may be kept, to be asked about before it is used.
    pub(super) async fn is_idle(&mut self) -> bool {
        let driver = &mut self.driver;
        let has_ended = poll_fn(|context| Poll::Ready(Pin::new(&mut *driver).poll(context).is_ready())).await;
        !has_ended && self.sender.is_ready()
    }
}
