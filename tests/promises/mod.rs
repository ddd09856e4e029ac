//! The promises of the crate, one test each, on every engine, blocking and not, over everything that can be wrapped.
//! (P8, callbacks, has its own tests.)

mod data;
mod drive;
mod ends;
mod sharing;
mod timing;
mod wires;

use crate::common;

use sslfile::Engine;
use wires::{Mode, Wire};

fn on_every_engine<W: Wire>(promise: fn(Engine, Mode), mode: Mode) {
    for engine in common::engines() {
        println!("{} with {engine:?}, {mode:?}", W::NAME);
        common::within(common::LONG, move || promise(engine, mode));
    }
}

macro_rules! promises {
    ($wire:ty, $mode:expr) => {
        use super::super::*;

        #[test]
        fn p1_shared() {
            on_every_engine::<$wire>(sharing::shared::<$wire>, $mode);
        }
        #[test]
        fn p2_full_duplex() {
            on_every_engine::<$wire>(sharing::full_duplex::<$wire>, $mode);
        }
        #[test]
        fn p3_no_deadlock_of_our_making() {
            on_every_engine::<$wire>(sharing::no_deadlock::<$wire>, $mode);
        }
        #[test]
        fn p4_blocking_or_not_at_any_time() {
            on_every_engine::<$wire>(timing::blocking_or_not::<$wire>, $mode);
        }
        #[test]
        fn p5_deadlines() {
            on_every_engine::<$wire>(timing::deadlines::<$wire>, $mode);
        }
        #[test]
        fn p6_accepted_once() {
            on_every_engine::<$wire>(data::accepted_once::<$wire>, $mode);
        }
        #[test]
        fn p7_nothing_forged() {
            on_every_engine::<$wire>(data::nothing_forged::<$wire>, $mode);
        }
        #[test]
        fn p9_the_stream_comes_back() {
            on_every_engine::<$wire>(ends::stream_comes_back::<$wire>, $mode);
        }
        #[test]
        fn p10_dropped() {
            on_every_engine::<$wire>(ends::dropped::<$wire>, $mode);
        }
    };
}

macro_rules! wires {
    ($($(#[$attribute:meta])* $module:ident: $wire:ident,)*) => {$(
        $(#[$attribute])*
        mod $module {
            mod blocking {
                promises!(super::super::wires::$wire, super::super::wires::Mode::Blocking);
            }
            mod nonblocking {
                promises!(super::super::wires::$wire, super::super::wires::Mode::Nonblocking);
            }
        }
    )*};
}

wires! {
    tcp: Tcp,
    #[cfg(unix)]
    unix: Unix,
    #[cfg(unix)]
    child_pipes: Pipes,
    memory: Memory,
    read_write: AnyReadWrite,
    tls_in_tls: Nested,
}
