use std::cell::{Cell, RefCell};

/// Room for what one receive brings. Larger receives still pay off on bulk; beyond this they do not.
pub(crate) const LARGE: usize = 256 * 1024 + HEADROOM;
/// Room for a few records that go out in one send.
const SMALL: usize = 72 * 1024;
/// Free space kept in front of a large buffer, so that the rest of a record already there can be put before what is
/// received next without moving the latter.
const HEADROOM: usize = 17 * 1024;
/// How many buffers of each size a thread keeps for the next taker, beside the last that it got.
const KEPT: usize = 3;

thread_local! {
    static POOL: Pool = const { Pool { small: Shelf::new(), large: Shelf::new() } };
}

struct Pool {
    small: Shelf,
    large: Shelf,
}

struct Shelf {
    /// Given back last, and still in the processor's cache. Most takers find it here.
    last: Cell<Vec<u8>>,
    rest: RefCell<Vec<Vec<u8>>>,
}

impl Shelf {
    const fn new() -> Shelf {
        Shelf { last: Cell::new(Vec::new()), rest: RefCell::new(Vec::new()) }
    }

    #[inline]
    fn take(&self) -> Vec<u8> {
        let last = self.last.take();
        if !last.is_empty() {
            return last;
        }
        self.rest.borrow_mut().pop().unwrap_or_default()
    }

    #[inline]
    fn put(&self, storage: Vec<u8>) {
        let before = self.last.replace(storage);
        if !before.is_empty() {
            self.keep(before);
        }
    }

    #[cold]
    fn keep(&self, storage: Vec<u8>) {
        let mut rest = self.rest.borrow_mut();
        if rest.len() < KEPT {
            rest.push(storage);
        }
    }
}

/// Storage of at least `size` bytes, all of them initialised: zeroed once when made, never again.
#[inline(always)]
fn take(size: usize) -> Vec<u8> {
    let (pooled, size) = match size {
        _ if size <= SMALL => (POOL.try_with(|pool| pool.small.take()), SMALL),
        _ if size <= LARGE => (POOL.try_with(|pool| pool.large.take()), LARGE),
        _ => (Ok(Vec::new()), size.next_multiple_of(64 * 1024)),
    };
    match pooled {
        Ok(storage) if !storage.is_empty() => storage,
        _ => vec![0; size],
    }
}

#[inline(always)]
fn give_back(storage: Vec<u8>) {
    // A thread that is ending has no pool any more; the storage is then freed.
    let _ = match storage.len() {
        SMALL => POOL.try_with(|pool| pool.small.put(storage)),
        LARGE => POOL.try_with(|pool| pool.large.put(storage)),
        _ => return,
    };
}

/// A queue of bytes in one piece. Takes its storage from a pool of the thread when there is something to hold and gives
/// it back when that is gone, so that an idle connection holds none.
///
/// What is in the pool or freed has no plaintext of a connection's: such is wiped first.
#[derive(Default)]
pub(crate) struct Buffer {
    /// All initialised; what counts is `start..end`.
    storage: Vec<u8>,
    start: usize,
    end: usize,
    /// All that it is given is plaintext.
    is_plain: bool,
    /// Where in the storage plaintext is or has been; up to 0 if nowhere.
    plain: (usize, usize),
}

impl Buffer {
    pub const NEW: Buffer = Buffer { storage: Vec::new(), start: 0, end: 0, is_plain: false, plain: (0, 0) };

    /// An empty one for plaintext.
    pub fn for_plaintext() -> Buffer {
        Buffer { storage: Vec::new(), start: 0, end: 0, is_plain: true, plain: (0, 0) }
    }

    /// An empty one with room for a large receive behind some headroom.
    #[inline(always)]
    pub fn for_receiving() -> Buffer {
        Buffer { storage: take(LARGE), start: HEADROOM, end: HEADROOM, is_plain: false, plain: (0, 0) }
    }

    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    #[cfg(feature = "rustls")]
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.make_room(bytes.len());
        self.storage[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
        if self.is_plain {
            self.becomes_plain();
        }
    }

    /// What it holds has been decrypted in place, or will be.
    #[inline]
    pub fn becomes_plain(&mut self) {
        self.plain = match self.plain {
            (_, 0) => (self.start, self.end),
            (from, to) => (from.min(self.start), to.max(self.end)),
        };
    }

    /// Before the storage is given back.
    fn wipe(&mut self) {
        let (from, to) = std::mem::take(&mut self.plain);
        if let Some(plain) = self.storage.get_mut(from..to).filter(|plain| !plain.is_empty()) {
            // Not byte by byte, as `zeroize` does it: that would take as long as decrypting.
            plain.fill(0);
            std::hint::black_box(plain);
        }
    }

    /// Drops `n` bytes from the front (at most all).
    #[inline]
    pub fn consume(&mut self, n: usize) {
        self.start += n.min(self.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// Moves bytes from the front into `out`; says how many.
    #[inline]
    pub fn read_into(&mut self, out: &mut [u8]) -> usize {
        let n = self.len().min(out.len());
        out[..n].copy_from_slice(&self.as_slice()[..n]);
        self.consume(n);
        n
    }

    /// Everything, as a vector of just that size.
    pub fn take_vec(&mut self) -> Vec<u8> {
        let bytes = self.as_slice().to_vec();
        self.clear();
        bytes
    }

    #[inline]
    pub fn clear(&mut self) {
        if self.plain.1 > 0 {
            self.wipe();
        }
        (self.start, self.end) = (0, 0);
        if !self.storage.is_empty() {
            give_back(std::mem::take(&mut self.storage));
        }
    }

    /// The free space at the end, at least `n` bytes of it, to be followed by [`filled`](Buffer::filled).
    #[inline(always)]
    pub fn space(&mut self, n: usize) -> &mut [u8] {
        self.make_room(n);
        &mut self.storage[self.end..]
    }

    /// The first `n` bytes of the last `space` have been written.
    #[inline(always)]
    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.storage.len());
        if self.is_empty() {
            self.clear();
        } else if self.is_plain {
            self.becomes_plain();
        }
    }

    /// Appends all of `other`. Cheap when this one is empty or holds less than the other's headroom.
    #[inline(always)]
    pub fn append_buffer(&mut self, other: Buffer) {
        if self.storage.is_empty() && self.is_plain == other.is_plain {
            // Without the drop of what has nothing.
            return std::mem::forget(std::mem::replace(self, other));
        }
        self.join(other);
    }

    fn join(&mut self, mut other: Buffer) {
        let is_plain = self.plain.1 > 0 || other.plain.1 > 0;
        if self.storage.is_empty() || self.len() <= other.start {
            let start = other.start - self.len();
            other.storage[start..other.start].copy_from_slice(self.as_slice());
            other.start = start;
            std::mem::swap(self, &mut other);
            std::mem::swap(&mut self.is_plain, &mut other.is_plain);
        } else {
            self.append(other.as_slice());
        }
        if is_plain || self.is_plain {
            self.becomes_plain();
        }
        other.clear();
    }

    /// Moves what a nearly empty large buffer holds to storage of its own size, and gives the large one back.
    pub fn shrink(&mut self) {
        if self.len() < self.storage.len() / 16 && self.storage.len() >= SMALL {
            let (rest, was_plain) = (self.as_slice().to_vec(), self.plain.1 > 0);
            self.clear();
            self.end = rest.len();
            self.storage = rest;
            if was_plain {
                self.becomes_plain();
            }
        }
    }

    #[inline(always)]
    fn make_room(&mut self, n: usize) {
        if self.storage.is_empty() {
            if n > 0 {
                self.storage = take(n);
            }
        } else if self.storage.len() - self.end < n {
            self.make_more_room(n);
        }
    }

    #[cold]
    fn make_more_room(&mut self, n: usize) {
        let (len, was_plain) = (self.len(), self.plain.1 > 0);
        if self.storage.len() >= len + n && self.start >= len {
            self.storage.copy_within(self.start..self.end, 0);
            self.plain.0 = 0;
        } else {
            let mut larger = take((len + n).max(if len == 0 { 0 } else { self.storage.len() * 2 }));
            larger[..len].copy_from_slice(self.as_slice());
            self.wipe();
            give_back(std::mem::replace(&mut self.storage, larger));
        }
        (self.start, self.end) = (0, len);
        if was_plain {
            self.becomes_plain();
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_through_growth_and_consumption() {
        let mut buffer = Buffer::default();
        let mut expected = std::collections::VecDeque::new();
        let mut next = 0u8;
        for round in 0..400usize {
            let chunk: Vec<u8> = (0..round * 7 % 5000)
                .map(|_| {
                    next = next.wrapping_add(31);
                    next
                })
                .collect();
            buffer.append(&chunk);
            expected.extend(chunk);
            let mut out = vec![0; round * 11 % 4000];
            let n = buffer.read_into(&mut out);
            assert_eq!(out[..n], expected.drain(..n).collect::<Vec<_>>());
        }
        assert_eq!(buffer.take_vec(), expected.into_iter().collect::<Vec<_>>());
        assert!(buffer.storage.is_empty());
    }

    #[test]
    fn a_received_buffer_goes_behind_what_is_left() {
        for left in [0usize, 1, HEADROOM, HEADROOM + 1, 100_000] {
            let mut buffer = Buffer::default();
            buffer.append(&vec![7; left]);
            let mut received = Buffer::for_receiving();
            received.space(1)[..3].copy_from_slice(b"abc");
            received.filled(3);
            buffer.append_buffer(received);
            assert_eq!(buffer.len(), left + 3);
            assert_eq!(&buffer.as_slice()[left..], b"abc");
        }
    }

    fn pool_is_clean() -> bool {
        POOL.with(|pool| {
            [&pool.small, &pool.large].into_iter().all(|shelf| {
                let all = std::iter::from_fn(|| Some(shelf.take()).filter(|storage| !storage.is_empty()));
                all.collect::<Vec<_>>().into_iter().all(|storage| storage.iter().all(|byte| *byte == 0))
            })
        })
    }

    fn empty_pool() {
        POOL.with(|pool| [&pool.small, &pool.large].into_iter().for_each(|shelf| while !shelf.take().is_empty() {}));
    }

    #[test]
    fn plaintext_is_wiped_before_its_storage_goes_to_the_pool() {
        // Consumed, whole and in pieces; grown; moved to the front; as a vector; put in front of another; cleared; dropped.
        let uses: [fn(&mut Buffer); 8] = [
            |buffer| buffer.consume(1000),
            |buffer| (0..1000).for_each(|_| buffer.consume(1)),
            |buffer| {
                buffer.append(&[7; SMALL]);
                buffer.append(&[7; LARGE]);
                buffer.clear();
            },
            |buffer| {
                buffer.append(&[7; SMALL - 2000]);
                buffer.consume(SMALL - 1100);
                buffer.append(&[7; 1500]);
                buffer.consume(2000);
            },
            |buffer| drop(buffer.take_vec()),
            |buffer| {
                let mut front = Buffer::for_plaintext();
                front.append(&[7; 100]);
                front.append_buffer(std::mem::replace(buffer, Buffer::for_plaintext()));
                assert_eq!(front.len(), 1100);
            },
            |buffer| {
                buffer.space(5000)[..5000].fill(7);
                buffer.filled(5000);
                buffer.consume(5999);
                buffer.clear();
            },
            |buffer| drop(std::mem::take(buffer)),
        ];
        for (number, used) in uses.into_iter().enumerate() {
            empty_pool();
            let mut buffer = Buffer::for_plaintext();
            buffer.append(&[7; 1000]);
            used(&mut buffer);
            drop(buffer);
            assert!(pool_is_clean(), "{number}");
        }
    }

    #[test]
    fn what_is_decrypted_in_place_is_wiped_and_nothing_else_is() {
        for left in [0, 10, HEADROOM] {
            empty_pool();
            let mut buffer = Buffer::default();
            buffer.append(&vec![7; left]);
            buffer.becomes_plain();
            let mut received = Buffer::for_receiving();
            received.append(&[7; 2000]);
            buffer.append_buffer(received);
            buffer.becomes_plain();
            buffer.consume(left + 500);
            buffer.becomes_plain();
            buffer.shrink();
            buffer.consume(1500);
            assert!(buffer.is_empty() && pool_is_clean(), "{left}");
        }
        empty_pool();
        let mut ciphertext = Buffer::for_receiving();
        ciphertext.append(&[7; 2000]);
        drop(ciphertext);
        assert!(!pool_is_clean());
        empty_pool();
    }

    #[test]
    fn shrinking_keeps_the_rest() {
        let mut buffer = Buffer::for_receiving();
        buffer.append(b"rest");
        buffer.shrink();
        assert_eq!(buffer.storage.len(), 4);
        assert_eq!(buffer.as_slice(), b"rest");
        buffer.append(b"!");
        assert_eq!(buffer.as_slice(), b"rest!");
    }
}
