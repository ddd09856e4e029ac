//! Schedules: what threads do with each other, run under [shuttle](https://docs.rs/shuttle) in a hundred thousand orders.
//!
//! The code is the real one: the doorbell and its wait, a file's drivers with their machine, the backend, the lingering
//! thread. Modelled is what is under them: locks, conditions, atomics, threads and the clock (`sync`), the stream and the
//! system's `poll` (`net`), the poller (`waiter`). Time is a thread, too: whenever the scheduler lets it run, it passes to the
//! next moment that somebody waits for.
//!
//! | to | run |
//! |---|---|
//! | run all | `RUSTFLAGS="--cfg shuttle -C debug-assertions" cargo test --release --lib --features rustls --target-dir target/schedules schedules` |
//! | run more | the same with `SSLFILE_SCHEDULES=10000000` (for each model; 100,000 by default; half at random, half by priorities) |
//! | replay what has failed | the same with `SSLFILE_SCHEDULE=` and what stands between the quotes of `failing schedule`, and the test's name instead of `schedules` |
//!
//! A failure is a panic: of a model's `assert`, of a file's invariant, for a deadlock (somebody was not woken), or for far too
//! many steps. Each model is also run with a notification left out, which it must find.

mod backend;
mod callbacks;
mod doorbell;
mod last_handle;
mod leases;
pub(crate) mod net;
pub(crate) mod sync;
mod wake;

use std::panic::{catch_unwind, AssertUnwindSafe};

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// Far more than any schedule takes.
const STEPS: usize = 20_000;

fn runner(scheduler: impl Scheduler + 'static, persistence: FailurePersistence) -> Runner<impl Scheduler> {
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.failure_persistence = persistence;
    config.silence_warnings = true;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    Runner::new(scheduler, config)
}

/// At the end of each schedule.
fn wait_for_lingerers() {
    // The thread on which files linger is at its end soon. Files that have gone and are counted cost too many steps.
    while crate::drive::linger::count() > 0 {
        shuttle::thread::yield_now();
    }
}

/// Runs a model in many orders. See the module's page.
fn check(model: fn()) {
    let begun = std::time::Instant::now();
    let model = move || sync::in_time(model);
    if let Ok(schedule) = std::env::var("SSLFILE_SCHEDULE") {
        runner(ReplayScheduler::new_from_encoded(&schedule), FailurePersistence::None).run(model);
        return;
    }
    let all = std::env::var("SSLFILE_SCHEDULES").map_or(100_000, |n| n.parse().expect("a number of schedules"));
    let half = all / 2;
    runner(RandomScheduler::new(half), FailurePersistence::Print).run(model);
    let random = begun.elapsed();
    runner(PctScheduler::new(3, all - half), FailurePersistence::Print).run(model);
    println!("{half} at random in {random:.1?}, {} by priorities; {:.1?} in all", all - half, begun.elapsed());
}

/// The model must fail.
fn must_find(model: fn()) {
    const AT_MOST: usize = 20_000;
    let model = move || sync::in_time(model);
    let run = || runner(RandomScheduler::new_from_seed(7, AT_MOST), FailurePersistence::None).run(model);
    let found = catch_unwind(AssertUnwindSafe(run)).is_err();
    sync::lose_notification(None);
    assert!(found, "not found in {AT_MOST} schedules");
}

/// The model must fail when the `n`th notification of each schedule is left out.
fn must_find_without_notification(n: usize, model: fn()) {
    sync::lose_notification(Some(n));
    must_find(model);
}
