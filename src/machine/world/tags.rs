//! Bytes that tell where they come from.

/// Calls that write at most.
pub(super) const CALLS: usize = 84;
const CYCLE: usize = 251;

/// What one call writes: its number, three times over, with the place.
pub(super) fn tagged(id: usize, n: usize) -> Vec<u8> {
    let unit = [id as u8 * 3, id as u8 * 3 + 1, id as u8 * 3 + 2];
    let mut bytes = unit.repeat(n / 3 + 1);
    bytes.truncate(n);
    bytes
}

/// What the peer got of it.
pub(super) struct Written {
    pub counts: [usize; CALLS],
    last: usize,
    seen: [bool; CALLS],
}

impl Default for Written {
    fn default() -> Written {
        Written { counts: [0; CALLS], last: usize::MAX, seen: [false; CALLS] }
    }
}

impl Written {
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(&first) = bytes.first() {
            let id = usize::from(first) / 3;
            if id >= CALLS {
                return Err(format!("meaning: byte {first} was never written"));
            }
            if id != self.last {
                if std::mem::replace(&mut self.seen[id], true) {
                    return Err(format!("fairness: write {id} is torn by {}", self.last));
                }
                self.last = id;
            }
            let mut n = 0;
            for &byte in bytes.iter().take_while(|&&byte| usize::from(byte) / 3 == id) {
                if usize::from(byte) % 3 != (self.counts[id] + n) % 3 {
                    return Err(format!("meaning: a part of write {id} is missing, or is there twice"));
                }
                n += 1;
            }
            self.counts[id] += n;
            bytes = &bytes[n..];
        }
        Ok(())
    }
}

/// A stream of bytes that count: what the peer sends.
#[derive(Default)]
pub(super) struct Counted {
    pub count: u64,
}

static CYCLES: [u8; CYCLE * 80] = {
    let mut all = [0; CYCLE * 80];
    let mut i = 0;
    while i < all.len() {
        all[i] = (i % CYCLE) as u8;
        i += 1;
    }
    all
};

impl Counted {
    fn expected(&self, n: usize) -> &'static [u8] {
        let at = (self.count % CYCLE as u64) as usize;
        &CYCLES[at..at + n]
    }

    pub fn make(&mut self, n: usize, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(self.expected(n));
        self.count += n as u64;
    }

    pub fn check(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(16 * 1024));
            if now != self.expected(now.len()) {
                let expected = self.expected(now.len());
                let at = now.iter().zip(expected).take_while(|(a, b)| a == b).count();
                let (got, wanted) = (now[at], expected[at]);
                let at = self.count + at as u64;
                return Err(format!("meaning: what was read at {at} is not what was sent: {got}, not {wanted}"));
            }
            self.count += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }
}
