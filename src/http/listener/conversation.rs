//! One connection, from its opening to its end: hyper, and what tells the [`Seat`] how far it is.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::{BoxError, Router};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Limits;
use super::waiting::Seat;

/// Serves a connection until its peer or hyper ends it, its place is given away, or, between two requests, the service stops.
pub(super) async fn converse(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    seat: Arc<Seat>,
) {
    // Answers are one small segment: waiting for more to send only delays them. Without it they still arrive.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_headers(limits.headers)
        .max_buf_size(limits.buffer_bytes);
    let io = ImpatientStream { inner: stream, patience: limits.write, stuck: None, seat: Arc::clone(&seat) };
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| answer(&router, &seat, request));
    // Without `with_upgrades`: HTTP/1 is all there is.
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        // A head that has arrived is read before the connection is told to end: then it is answered.
        biased;
        ended = connection.as_mut() => ended,
        () = seat.evicted() => return,
        () = shutdown.cancelled() => {
            // hyper would wait for the rest of half a head.
            if seat.awaits_head() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // What strangers send is no news.
        debug!(listener = limits.name, error = &error as &dyn std::error::Error, "a connection broke off");
    }
}

/// Has a request handled. One whose place is given away is not begun.
fn answer(
    router: &TowerToHyperService<Router>,
    seat: &Arc<Seat>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + use<> {
    let begun = seat.head_is_read(!request.body().is_end_stream()).then(|| {
        let seat = Arc::clone(seat);
        router.call(request.map(|body| RequestBody { body, seat }))
    });
    let seat = Arc::clone(seat);
    async move {
        let answer = match begun {
            Some(handled) => handled.await?,
            None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        };
        seat.answer_begins();
        Ok(answer.map(|body| AnswerBody { body, seat }))
    }
}

/// A request's body. The request is in hand when it ends, or nobody wants it any more. It does not say beforehand that it is at its end, so
/// that whoever reads it hears at the end whether it is too late.
struct RequestBody {
    body: Incoming,
    seat: Arc<Seat>,
}

impl Body for RequestBody {
    type Data = <Incoming as Body>::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() && !self.seat.body_is_read() {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.seat.body_is_read();
    }
}

/// An answer's body, dropped when hyper has all of it.
struct AnswerBody {
    body: axum::body::Body,
    seat: Arc<Seat>,
}

impl Body for AnswerBody {
    type Data = <axum::body::Body as Body>::Data;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.seat.answer_is_whole();
    }
}

/// A connection that fails when its peer takes nothing of an answer for too long. hyper waits for ever: a peer that sends requests
/// without reading the answers would keep its place.
struct ImpatientStream<S> {
    inner: S,
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
    seat: Arc<Seat>,
}

impl<S: AsyncWrite + Unpin> ImpatientStream<S> {
    fn impatiently<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = write(Pin::new(&mut self.inner), context) {
            if self.stuck.take().is_some() {
                self.seat.taken();
            }
            return Poll::Ready(done);
        }
        self.seat.not_taken();
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stuck.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ImpatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ImpatientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.impatiently(context, |inner, context| inner.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.impatiently(context, |inner, context| inner.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    // A socket flushes and shuts down without waiting. hyper flushes when it has written all it has.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.seat.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::tests::{PATIENCE, new_seat};
    use super::*;

    #[tokio::test]
    async fn a_peer_that_takes_its_answer_slowly_gets_all_of_it() {
        let (stream, mut peer) = tokio::io::duplex(4);
        let mut stream = ImpatientStream { inner: stream, patience: PATIENCE, stuck: None, seat: new_seat() };
        let sent = tokio::spawn(async move { stream.write_all(b"a long answer").await });
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "a long answer");
        sent.await.unwrap().unwrap();
    }
}
