//! A launch: its blocks one after another, the warps of a block in turn.

use super::fault::{Failure, thread};
use super::program::Special;
use super::registers::{LANES, Mask};
use super::shared::{Shared, Ticks};
use super::warp::{Progress, Warp};
use super::{Fault, Kernel, Launch, Memory, Stats};

/// What the warps of a block share.
pub(super) struct Env<'e> {
    pub(super) kernel: &'e Kernel,
    pub(super) launch: Launch<'e>,
    pub(super) memory: &'e mut dyn Memory,
    pub(super) shared: Shared,
    /// The block that runs.
    pub(super) block: [u32; 3],
    /// Who has arrived at a barrier without waiting, by its number.
    pub(super) arrived: [Arrived; BARRIERS],
    pub(super) limits: Limits,
    pub(super) stats: Stats,
}

/// How long a warp runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Instructions after which a warp, or a fragment of one, lets others run that may be what it spins for.
    pub(super) slice: u64,
    /// Instructions after which it is said to run for ever.
    pub(super) instructions_max: u64,
}

/// Warps that have arrived at a barrier without waiting.
#[derive(Clone, Copy, Default)]
pub(super) struct Arrived {
    threads: u32,
    /// The tick of each warp's arrival: what it did before is seen by whoever waits.
    ticks: Ticks,
}

impl Arrived {
    pub(super) fn add(&mut self, warp: usize, tick: u32) {
        self.threads += LANES as u32;
        self.ticks[warp] = tick;
    }
}

/// Barriers that a block has.
pub(super) const BARRIERS: usize = 16;

/// Runs every block.
pub(super) fn launch(
    kernel: &Kernel,
    launch: Launch<'_>,
    memory: &mut dyn Memory,
    limits: Limits,
) -> Result<Stats, Fault> {
    let threads = threads(kernel, &launch)?;
    let warps = threads.div_ceil(LANES);
    let mut env = Env {
        kernel,
        launch,
        memory,
        shared: Shared::new(kernel.program.shared_bytes + launch.shared_bytes, launch.block),
        block: [0; 3],
        arrived: [Arrived::default(); BARRIERS],
        limits,
        stats: Stats::default(),
    };
    let mut warps: Vec<Warp> = (0..warps).map(|index| Warp::new(index, threads, &env)).collect();
    for z in 0..launch.grid[2] {
        for y in 0..launch.grid[1] {
            for x in 0..launch.grid[0] {
                env.block = [x, y, z];
                run(&mut env, &mut warps)?;
            }
        }
    }
    Ok(env.stats)
}

/// Threads of a block, if the launch is one that a device takes.
fn threads(kernel: &Kernel, launch: &Launch<'_>) -> Result<usize, Fault> {
    let fault = |what: String| Err(Fault { message: format!("kernel {}: {what}", kernel.name) });
    let threads = launch.block.iter().try_fold(1_u32, |threads, axis| threads.checked_mul(*axis)).unwrap_or(u32::MAX);
    let [x, y, z] = launch.block;
    let threads_max = kernel.max_threads();
    if threads == 0 || threads > threads_max {
        return fault(format!("a block of {x} x {y} x {z} threads; it takes 1 to {threads_max}"));
    }
    if launch.grid.contains(&0) {
        return fault(format!("a grid of {:?} blocks", launch.grid));
    }
    if launch.params.len() < kernel.params_bytes() {
        let (found, expected) = (launch.params.len(), kernel.params_bytes());
        return fault(format!("{found} bytes of parameters; it takes {expected}"));
    }
    Ok(threads as usize)
}

/// Runs a block.
fn run(env: &mut Env<'_>, warps: &mut [Warp]) -> Result<(), Fault> {
    env.shared.begin();
    env.arrived = [Arrived::default(); BARRIERS];
    for warp in warps.iter_mut() {
        warp.begin(env);
    }
    loop {
        let mut yielded = false;
        for warp in warps.iter_mut() {
            yielded |= warp.run(env)? == Progress::Yielded;
        }
        if yielded {
            continue;
        }
        if warps.iter().all(|warp| warp.live() == 0) {
            return Ok(());
        }
        if !release(env, warps)? {
            return Err(stuck(env, warps));
        }
    }
}

/// Lets warps go on whose barrier is complete; whether there were any.
fn release(env: &mut Env<'_>, warps: &mut [Warp]) -> Result<bool, Fault> {
    let mut any = false;
    for number in 0..BARRIERS {
        let Some(threads) = warps.iter().find_map(|warp| warp.waits_at(number)) else { continue };
        let waiting = |warp: &Warp| warp.waiting(number);
        let complete = |warp: &Warp| warp.live() != 0 && waiting(warp) == warp.live();
        let arrived =
            warps.iter().filter(|warp| complete(warp)).count() as u32 * LANES as u32 + env.arrived[number].threads;
        let whole = warps.iter().all(|warp| waiting(warp) == warp.live());
        let done = match threads {
            None => whole,
            Some(threads) => arrived >= threads && warps.iter().all(|warp| waiting(warp) == 0 || complete(warp)),
        };
        if !done {
            continue;
        }
        let members = (0..warps.len()).filter(|at| waiting(&warps[*at]) != 0).fold(0, |all: Mask, at| all | 1 << at);
        let code = &env.kernel.program.code;
        let votes = warps.iter().map(|warp| warp.vote(code, number));
        let votes = votes.fold([0; 2], |sum, vote| [sum[0] + vote[0], sum[1] + vote[1]]);
        for warp in warps.iter_mut() {
            warp.elected(code, number, votes);
            warp.pass(env, number)?;
        }
        match whole {
            true => env.shared.sync_block(),
            false => env.shared.sync_warps(members, &env.arrived[number].ticks),
        }
        env.arrived[number] = Arrived::default();
        any = true;
    }
    Ok(any)
}

/// Nothing can go on: who waits where, and who does not.
#[cold]
fn stuck(env: &Env<'_>, warps: &[Warp]) -> Fault {
    let (warp, (pc, mask, at_barrier)) = warps
        .iter()
        .flat_map(|warp| warp.stuck().map(move |place| (warp, place)))
        .min_by_key(|(_, place)| place.2)
        .unwrap_or_else(|| (&warps[0], (0, 0, false)));
    let waiting = &env.kernel.program.code[pc as usize];
    let others: Vec<String> = warps
        .iter()
        .flat_map(|other| other.stuck().map(move |place| (other.index(), place)))
        .filter(|(index, place)| (*index, place.0) != (warp.index(), pc))
        .take(3)
        .map(|(index, (pc, mask, _))| {
            let [x, y, z] = thread(index * LANES + mask.trailing_zeros() as usize, env.launch.block);
            format!("thread ({x}, {y}, {z}) waits at line {}", env.kernel.program.code[pc as usize].line)
        })
        .collect();
    let exited = warps.iter().map(Warp::exited).sum::<u32>();
    let what = if at_barrier {
        "barrier divergence: part of the block waits here"
    } else {
        "lanes of its mask never come: part of the warp waits here"
    };
    let others = if others.is_empty() { "nobody else waits".into() } else { others.join(", ") };
    let what = format!("{what}, {others}, {exited} threads have exited");
    let lane = mask.trailing_zeros() as usize % LANES;
    Failure::at(lane, what).fault(env, warp.index(), waiting)
}

impl Env<'_> {
    /// What a lane finds in a special register.
    pub(super) fn special(&self, special: Special, warp: usize, lane: usize) -> u64 {
        let number = thread(warp * LANES + lane, self.launch.block);
        let threads: u32 = self.launch.block.iter().product();
        let equal: Mask = 1 << lane;
        let shared = self.kernel.program.shared_bytes + self.launch.shared_bytes;
        let value = match special {
            Special::Thread(axis) => number[axis] as u32,
            Special::Threads(axis) => self.launch.block[axis],
            Special::Block(axis) => self.block[axis],
            Special::Blocks(axis) => self.launch.grid[axis],
            Special::Lane => lane as u32,
            Special::Warp => warp as u32,
            Special::Warps => threads.div_ceil(LANES as u32),
            Special::LanesEqual => equal,
            Special::LanesLess => equal - 1,
            Special::LanesLessEqual => equal | (equal - 1),
            Special::LanesGreater => !(equal | (equal - 1)),
            Special::LanesGreaterEqual => !(equal - 1),
            Special::DynamicShared => self.launch.shared_bytes as u32,
            Special::TotalShared => shared as u32,
            Special::Zero | Special::Zero64 => 0,
            Special::One => 1,
        };
        value.into()
    }
}
