//! Reads the body of a message within a bound of memory that holds for all bodies together.
//!
//! The first block of a body, more than an IPN needs, is everybody's own. What is longer takes blocks from a pool that all
//! bodies share. So whoever sends many large bodies slowly can use up the pool, and only large bodies are turned away.

use axum::body::{Body, HttpBody};
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};

/// SNS messages over HTTP hold at most 256 KiB of payload; escaping doubles quotes.
pub(super) const MAX_BYTES: usize = 512 * 1024;
/// An IPN in its envelope has 2 to 4 KiB.
pub(super) const BLOCK_BYTES: usize = 16 * 1024;

/// A body in memory, with the blocks that it holds until it is dropped.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    pub(super) bytes: Vec<u8>,
    /// The length that was announced, or 0.
    expected: usize,
    blocks: Blocks<'a>,
}

#[derive(Debug)]
struct Blocks<'a> {
    pool: &'a Semaphore,
    held: Option<SemaphorePermit<'a>>,
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// Longer than [`MAX_BYTES`].
    TooLarge,
    /// The connection or its framing broke. The body may be whole next time.
    BrokenOff,
    /// The pool is used up.
    NoRoom,
}

impl Blocks<'_> {
    /// Takes what `length` bytes need and are not held yet. False: the pool does not have it.
    fn cover(&mut self, length: usize) -> bool {
        let needed = length.div_ceil(BLOCK_BYTES).saturating_sub(1);
        let held = self.held.as_ref().map_or(0, SemaphorePermit::num_permits);
        let Ok(missing) = u32::try_from(needed.saturating_sub(held)) else { return false };
        if missing == 0 {
            return true;
        }
        let Ok(taken) = self.pool.try_acquire_many(missing) else { return false };
        match &mut self.held {
            Some(held) => held.merge(taken),
            None => self.held = Some(taken),
        }
        true
    }
}

impl Whole<'_> {
    /// Bytes are copied out of their frame: frames of one byte would each hold on to a whole buffer.
    fn append(&mut self, data: &[u8]) -> Result<(), Unread> {
        let length = self.bytes.len().saturating_add(data.len());
        if length > MAX_BYTES {
            return Err(Unread::TooLarge);
        }
        if !self.blocks.cover(length) {
            return Err(Unread::NoRoom);
        }
        if length > self.bytes.capacity() {
            // An IPN announces its length, and a seventh of a block is less to find and to give back than a block.
            let announced = (length..=BLOCK_BYTES).contains(&self.expected);
            let room = if announced { self.expected } else { length.next_multiple_of(BLOCK_BYTES) };
            self.bytes.reserve_exact(room.saturating_sub(self.bytes.len()));
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// Reads a body. What cannot be kept is read to its end and thrown away: closing the connection before that would reset it, and the
/// sender might not hear the answer. How long it may take is up to the caller.
pub(super) async fn read(mut body: Body, pool: &Semaphore) -> Result<Whole<'_>, Unread> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > MAX_BYTES {
        pass_over(body).await;
        return Err(Unread::TooLarge);
    }
    let mut whole = Whole { bytes: Vec::new(), expected, blocks: Blocks { pool, held: None } };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Unread::BrokenOff) };
        // The rest is trailers, which nobody asks for.
        let Some(data) = frame.data_ref() else { continue };
        if let Err(unread) = whole.append(data) {
            drop(whole);
            pass_over(body).await;
            return Err(unread);
        }
    }
    Ok(whole)
}

/// Reads a body to its end and keeps nothing. How long it may take is up to the caller.
pub(super) async fn pass_over(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: usize = MAX_BYTES / BLOCK_BYTES;

    fn body(length: usize) -> Body {
        Body::from(vec![b'x'; length])
    }

    #[tokio::test]
    async fn a_body_of_one_block_needs_no_room_in_the_pool() {
        let empty = Semaphore::new(0);
        for length in [0, 1, BLOCK_BYTES] {
            let whole = read(body(length), &empty).await.unwrap();
            assert_eq!(
                (whole.bytes.len(), whole.bytes.capacity()),
                (length, length),
                "no more memory than was announced"
            );
        }
        assert_eq!(read(body(BLOCK_BYTES + 1), &empty).await.unwrap_err(), Unread::NoRoom);
    }

    #[tokio::test]
    async fn a_longer_body_holds_its_blocks_until_it_is_dropped() {
        let pool = Semaphore::new(PLENTY);
        let whole = read(body(3 * BLOCK_BYTES), &pool).await.unwrap();
        assert_eq!(pool.available_permits(), PLENTY - 2);
        assert_eq!(whole.bytes.capacity(), 3 * BLOCK_BYTES, "no more memory than the blocks stand for");
        drop(whole);
        assert_eq!(pool.available_permits(), PLENTY);
    }

    #[tokio::test]
    async fn blocks_are_taken_as_the_body_grows_and_given_back_when_there_are_too_few() {
        let pool = Semaphore::new(2);
        let mut whole = Whole { bytes: Vec::new(), expected: 0, blocks: Blocks { pool: &pool, held: None } };
        for (length, left) in [(BLOCK_BYTES, 2), (1, 1), (BLOCK_BYTES, 0)] {
            whole.append(&vec![b'x'; length]).unwrap();
            assert_eq!(pool.available_permits(), left);
        }
        assert_eq!(whole.append(&[b'x'; BLOCK_BYTES]), Err(Unread::NoRoom));
        drop(whole);
        assert_eq!(pool.available_permits(), 2);
    }

    #[tokio::test]
    async fn the_longest_body_is_read_and_one_byte_more_is_refused() {
        let pool = Semaphore::new(PLENTY);
        assert_eq!(read(body(MAX_BYTES), &pool).await.unwrap().bytes.len(), MAX_BYTES);
        assert_eq!(read(body(MAX_BYTES + 1), &pool).await.unwrap_err(), Unread::TooLarge);
        assert_eq!(pool.available_permits(), PLENTY);
    }
}
