//! Who is at the other end: layers of records as `session` has them (one for each file), and manners, bad ones mostly.

mod hearing;

use super::manners::Manners;
use super::net::Net;
use super::real::Real;
use super::rng::Rng;
use super::session::{
    record, ALERT, ANSWER, CLIENT_HELLO, DATA, HANDSHAKE, LONGEST, PROTECTED, RENEWED, REQUEST, TICKET, UPDATE,
};
use super::tags::{Counted, Written};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Helloed,
    Done,
}

struct Layer {
    is_client: bool,
    is_tls13: bool,
    stage: Stage,
    input: Vec<u8>,
    saw_bye: bool,
    said_bye: bool,
    /// Our hello of a renegotiation has not been answered.
    owes_renewal: bool,
}

pub(super) struct Peer {
    pub manners: Manners,
    layers: Vec<Layer>,
    out: Vec<u8>,
    /// Acts that are left of its manners.
    pub budget: usize,
    /// Data of ours at most in one record.
    size: usize,
    pub sent: Counted,
    pub got: Written,
    pub saw_bye: bool,
    pub saw_alert: bool,
    scratch: Vec<u8>,
    trailing: bool,
    /// It misbehaves from the first moment, and not only once the handshake is done.
    is_early: bool,
    /// With real engines.
    real: Option<Real>,
}

impl Peer {
    /// The peer of files in these roles, the innermost first.
    pub fn new(manners: Manners, ours: &[(bool, bool)], room: usize, rng: &mut Rng) -> Peer {
        let layers = ours
            .iter()
            .map(|&(is_client, is_tls13)| Layer {
                is_client: !is_client,
                is_tls13,
                stage: Stage::Begin,
                input: Vec::new(),
                saw_bye: false,
                said_bye: false,
                owes_renewal: false,
            })
            .collect();
        Peer {
            manners,
            layers,
            out: Vec::new(),
            budget: if manners.floods() { 200 + rng.below(400) } else { rng.below(120) },
            size: if manners == Manners::Dripping { 20 } else { rng.pick(&[1, 40, 300, 2000, LONGEST]).min(2 * room) },
            sent: Counted::default(),
            got: Written::default(),
            saw_bye: false,
            saw_alert: false,
            scratch: Vec::new(),
            trailing: rng.percent(20),
            is_early: rng.percent(30),
            real: None,
        }
    }

    pub fn make_real(&mut self, real: Real) {
        self.real = Some(real);
    }

    /// It goes on with what it does.
    pub fn go_on(&mut self, rng: &mut Rng) {
        if self.manners.floods() {
            self.budget += 200 + rng.below(400);
        }
    }

    pub fn said_bye(&self, at: usize) -> bool {
        self.layers[at].said_bye
    }

    fn hears(&self) -> bool {
        self.manners.reads() || (!self.is_early && !self.is_open())
    }

    /// For a flood that fills what there is to be filled.
    pub fn drown(&mut self) {
        self.manners = Manners::Flooding;
        (self.size, self.budget) = (LONGEST, 550);
    }

    fn top(&self) -> usize {
        self.layers.len() - 1
    }

    pub fn is_open(&self) -> bool {
        self.layers[self.top()].stage == Stage::Done
    }

    /// One act. Says whether anything has changed.
    pub fn act(&mut self, net: &mut Net, rng: &mut Rng) -> Result<bool, String> {
        if net.reset {
            return Ok(false);
        }
        let mut did = false;
        if self.hears() && !net.to_peer.is_empty() {
            let few = self.manners == Manners::Dripping && rng.percent(90);
            let n = net.to_peer.len();
            let n = if few {
                n.min(rng.upto(40))
            } else if rng.percent(50) {
                n
            } else {
                n.min(rng.size(n))
            };
            let bytes = net.to_peer.as_slice()[..n].to_vec();
            net.to_peer.consume(n);
            match &mut self.real {
                Some(real) => {
                    real.hear(&bytes, &mut self.got)?;
                    self.note_real();
                }
                None => {
                    self.layers[0].input.extend_from_slice(&bytes);
                    self.understand()?;
                }
            }
            did = true;
        }
        did |= self.speak_first();
        did |= self.renew(rng);
        did |= self.misbehave(net, rng);
        if net.reset {
            return Ok(true);
        }
        if net.fin {
            self.out.clear();
        } else if !self.out.is_empty() {
            let n = self.out.len();
            let n = match self.manners {
                Manners::Dripping => n.min(rng.upto(6)),
                _ if rng.percent(30) => rng.upto(n),
                _ => n,
            };
            let n = net.arrive(&self.out[..n]);
            self.out.drain(..n);
            did |= n > 0;
        }
        did |= self.end(net);
        Ok(did)
    }

    /// A clean end is answered with one.
    fn end(&mut self, net: &mut Net) -> bool {
        let answers = self.manners.is_kind() && self.manners != Manners::Dripping;
        let is_over = |layer: &Layer| layer.saw_bye && layer.said_bye;
        let is_busy = self.manners.floods() && self.budget > 0 && self.is_open();
        if !answers || is_busy || !self.out.is_empty() {
            return false;
        }
        let mut did = false;
        for at in (0..self.layers.len()).rev() {
            let above = self.layers.get(at + 1).is_none_or(is_over);
            let layer = &mut self.layers[at];
            if layer.saw_bye && !layer.said_bye && above && layer.stage == Stage::Done {
                layer.said_bye = true;
                self.say(at, ALERT, None, &[1, 0]);
                did = true;
            }
        }
        // Behind it, in the clear: what `close_clean` leaves in the stream.
        if did && self.trailing && self.layers.len() == 1 {
            self.out.extend_from_slice(b"plain");
        }
        if !did && net.our_fin && net.out.is_empty() && net.to_peer.is_empty() && !net.fin {
            net.end_of_peer();
            did = true;
        }
        did
    }

    fn speak_first(&mut self) -> bool {
        if matches!(self.manners, Manners::Silent) {
            return false;
        }
        if let Some(real) = &mut self.real {
            return real.begin(&mut self.out);
        }
        for at in 0..self.layers.len() {
            let below = at == 0 || self.layers[at - 1].stage == Stage::Done;
            if below && self.layers[at].is_client && self.layers[at].stage == Stage::Begin {
                self.layers[at].stage = Stage::Helloed;
                self.say(at, HANDSHAKE, Some(CLIENT_HELLO), &[0; 120]);
                return true;
            }
        }
        false
    }

    fn renew(&mut self, rng: &mut Rng) -> bool {
        let at = (0..self.layers.len()).find(|at| self.layers[*at].owes_renewal);
        let Some(at) = at.filter(|_| self.manners != Manners::HalfRenegotiating) else { return false };
        if rng.percent(20) {
            self.layers[at].owes_renewal = false;
            self.say(at, PROTECTED, Some(RENEWED), &[0; 40]);
        }
        true
    }

    fn misbehave(&mut self, net: &mut Net, rng: &mut Rng) -> bool {
        let top = self.top();
        if self.budget == 0 || self.out.len() > 2 * LONGEST || self.layers[top].said_bye {
            return false;
        }
        let (open, bottom_open) = (self.is_open(), self.layers[0].stage == Stage::Done);
        let last = self.budget == 1;
        if !open && !self.is_early && self.manners != Manners::HelloThenReset {
            return false;
        }
        match self.manners {
            Manners::HelloThenReset => {
                self.budget -= 1;
                if last || rng.one_in(12) {
                    self.budget = 0;
                    net.reset_by_peer(rng.percent(50));
                }
                return true;
            }
            Manners::Silent => return false,
            Manners::Garbage if rng.one_in(10) => {
                self.budget = 0;
                let mut junk: Vec<u8> = (0..rng.upto(60)).map(|_| rng.below(256) as u8).collect();
                junk[0] = 0; // Nobody forges a record by chance.
                match rng.percent(50) {
                    true => self.out.extend_from_slice(&junk),
                    false => self.say(rng.below(top + 1), rng.pick(&[20, 21, 22, 23, 24]), None, &junk),
                }
                return true;
            }
            Manners::Resetting if last || rng.one_in(40) => {
                self.budget = 0;
                net.reset_by_peer(rng.percent(60));
                return true;
            }
            Manners::Cutting if last || rng.one_in(40) => {
                self.budget = 0;
                if rng.percent(50) {
                    self.out.clear();
                }
                let n = net.arrive(&self.out);
                self.out.drain(..n);
                net.end_of_peer();
                net.peer_gone = rng.percent(50);
                return true;
            }
            _ if !bottom_open => return false,
            _ => {}
        }
        self.budget -= 1;
        match self.manners {
            Manners::Updating | Manners::DeafUpdating => {
                let at = if open { rng.below(top + 1) } else { 0 };
                for _ in 0..rng.upto(40) {
                    self.say(at, PROTECTED, Some(UPDATE), &[0; 1]);
                    if open && rng.percent(60) {
                        self.data(1, rng);
                    }
                }
            }
            Manners::Barren => {
                let at = if open { rng.below(top + 1) } else { 0 };
                let kind = rng.below(4);
                // More than is allowed now and then only.
                let (n, has_data) =
                    if rng.percent(80) { (rng.upto(14), true) } else { (rng.size(64), rng.percent(50)) };
                for _ in 0..n {
                    match kind {
                        0 => self.say(at, PROTECTED, Some(DATA), &[]),
                        1 => self.say(at, PROTECTED, Some(TICKET), &[0; 180]),
                        2 => self.say(at, ALERT, None, &[1, 90]),
                        _ => self.say(at, PROTECTED, Some(ANSWER), &[0; 20]),
                    }
                }
                if open && has_data {
                    self.data(self.size, rng);
                }
            }
            Manners::Renegotiating | Manners::HalfRenegotiating if open && rng.percent(30) => {
                let at = rng.below(top + 1);
                if !self.layers[at].is_tls13 {
                    self.say(at, PROTECTED, Some(REQUEST), &[0; 4]);
                }
            }
            Manners::ClosingWell if open && (last || rng.one_in(40)) => {
                self.budget = 0;
                self.layers[top].said_bye = true;
                self.say(top, ALERT, None, &[1, 0]);
            }
            _ if !open => {
                self.budget += 1;
                return false;
            }
            manners if manners.floods() => {
                for _ in 0..rng.upto(4) {
                    self.data(self.size, rng);
                }
            }
            _ if rng.percent(40) => self.data(self.size, rng),
            _ => {}
        }
        true
    }

    /// A reset that was on its way comes before what we are about to send, so that it is the sender that meets it.
    pub fn get_ahead(&mut self, net: &mut Net, rng: &mut Rng) {
        let resets = matches!(self.manners, Manners::HelloThenReset | Manners::Resetting);
        if resets && self.budget > 0 && !net.reset && rng.one_in(12) {
            self.budget = 0;
            net.reset_by_peer(rng.percent(50));
        }
    }

    fn data(&mut self, most: usize, rng: &mut Rng) {
        let n = if self.manners.floods() { most } else { rng.upto(most) };
        let mut bytes = std::mem::take(&mut self.scratch);
        self.sent.make(n, &mut bytes);
        self.say(self.top(), PROTECTED, Some(DATA), &bytes);
        self.scratch = bytes;
    }

    /// What its engines have come to.
    fn note_real(&mut self) {
        let Some(real) = &mut self.real else { return };
        real.take_output(&mut self.out);
        for (layer, (is_open, saw_bye)) in self.layers.iter_mut().zip(real.state()) {
            if is_open {
                layer.stage = Stage::Done;
            }
            layer.saw_bye |= saw_bye;
        }
        self.saw_bye |= self.layers[self.top()].saw_bye;
    }

    /// A record of this layer, in records of those below.
    fn say(&mut self, at: usize, kind: u8, first: Option<u8>, body: &[u8]) {
        if let Some(real) = &mut self.real {
            real.say(at, (kind == PROTECTED).then_some(body));
            return self.note_real();
        }
        if at == 0 {
            return record(kind, first, body, &mut self.out);
        }
        let mut whole = Vec::with_capacity(body.len() + 6);
        record(kind, first, body, &mut whole);
        for chunk in whole.chunks(LONGEST) {
            self.say(at - 1, PROTECTED, Some(DATA), chunk);
        }
    }
}
