//! What runs when. Streams run only when something makes them, in an order that the seed draws from all that CUDA
//! allows.

use std::time::{Duration, Instant};

use crate::driver::{Driver, Locked};
use crate::random::Random;
use crate::result::{Code, Outcome};
use crate::stream::{HostFunction, Op, Work};

/// How a seed leans: some seeds run work as soon as it is queued, some as late as they may, some let one stream run far
/// ahead of another. Chances are in 256.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// That an operation runs when another was queued.
    after_call: u8,
    /// That any stream is chosen from, when some are waited for.
    stray: u8,
    /// That the stream which ran last runs again.
    stick: u8,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An operation ran.
    Ran,
    /// Another thread runs a host function that must end first.
    Busy,
    /// A value must be written first, as another thread may do.
    Held,
    /// Nothing can run.
    Stuck,
}

/// How long another thread is waited for that runs a host function, before a look at whether it has.
const BUSY: Duration = Duration::from_millis(100);
/// The same for one that may write a value: of that nobody tells.
const HELD: Duration = Duration::from_micros(100);

/// A stream, and the number of the operation that it is to have done.
pub type Goal = (u64, u64);

impl Temper {
    /// Draws one.
    pub fn draw(random: &mut Random) -> Self {
        let mut one_of = |choices: &[u8]| choices[random.below(choices.len())];
        Self { after_call: one_of(&[0, 0, 40, 200]), stray: one_of(&[0, 64, 192]), stick: one_of(&[0, 128, 240]) }
    }
}

impl Locked {
    /// Runs until the goals are reached.
    ///
    /// # Errors
    /// `LAUNCH_TIMEOUT`, with a report, if they cannot be.
    pub fn run_until(&mut self, goals: &[Goal]) -> Outcome {
        let mut held_since = None;
        while !goals.iter().all(|goal| self.reached(*goal)) {
            match self.step(Some(goals)) {
                Step::Ran => held_since = None,
                Step::Busy => self.wait_for_change(BUSY),
                Step::Held if self.has_patience(*held_since.get_or_insert_with(Instant::now)) => {
                    self.wait_for_change(HELD);
                }
                Step::Held | Step::Stuck => {
                    self.report("stuck", "the host waits for work that waits for ever");
                    return Err(Code::LAUNCH_TIMEOUT);
                }
            }
        }
        Ok(())
    }

    /// Empties the streams of broken contexts. Nothing in them is done, but those who wait for them are told.
    pub fn give_up_broken(&mut self) {
        let broken = |d: &Self, context| d.contexts.get(&context).is_some_and(|context| context.broken.is_some());
        let streams = self.streams.iter().filter(|(_, stream)| broken(self, stream.context));
        let goals: Vec<Goal> = streams.map(|(handle, stream)| (*handle, stream.queued)).collect();
        // What cannot end has been reported.
        let _ = self.run_until(&goals);
    }

    /// Whether a value that was waited for since then may still come.
    fn has_patience(&self, since: Instant) -> bool {
        since.elapsed() < Duration::from_millis(self.settings.value_ms)
    }

    /// Runs nothing or a few operations, as the hardware may while the host goes on.
    pub fn run_some(&mut self) {
        let chance = self.temper.after_call;
        while self.random.chance(chance) && self.step(None) == Step::Ran {}
    }

    /// Runs one operation: one that the goals need, or any.
    pub fn step(&mut self, goals: Option<&[Goal]>) -> Step {
        let stray = self.temper.stray;
        let candidates = match goals {
            Some(goals) if !self.random.chance(stray) => self.needed(goals),
            _ => self.streams.keys().copied().filter(|stream| self.runnable(*stream)).collect(),
        };
        if candidates.is_empty() {
            let busy = self.streams.values().any(|stream| stream.busy);
            return match goals {
                _ if busy => Step::Busy,
                // What strayed found nothing; what is needed may be there all the same.
                Some(goals) if !self.needed(goals).is_empty() => Step::Ran,
                _ if self.streams.keys().any(|stream| self.held_by_value(*stream)) => Step::Held,
                _ => Step::Stuck,
            };
        }
        let stick = self.temper.stick;
        let again = self.last_stream.filter(|last| candidates.contains(last) && self.random.chance(stick));
        let chosen = again.unwrap_or_else(|| candidates[self.random.below(candidates.len())]);
        self.last_stream = Some(chosen);
        self.run_first_of(chosen);
        Step::Ran
    }

    fn run_first_of(&mut self, handle: u64) {
        self.progress += 1;
        let Some(stream) = self.streams.get_mut(&handle) else { return };
        let Some(op) = stream.queue.pop_front() else { return };
        let (number, context, stream_number) = (op.number, stream.context, stream.actor);
        self.pass_time(handle, &op);
        if self.settings.trace {
            eprintln!("simcuda:   runs {} on stream {}", op.name, stream_number);
        }
        match op.work {
            Work::Host(function) if op.fault.is_none() => self.run_host_function(handle, context, function),
            _ => self.execute(handle, context, op),
        }
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.done = number;
            if stream.destroyed && stream.queue.is_empty() {
                self.retire(handle);
            }
        }
    }

    fn run_host_function(&mut self, handle: u64, context: u64, function: HostFunction) {
        let broken = self.contexts.get(&context).and_then(|context| context.broken);
        if broken.is_some() && matches!(function, HostFunction::Plain(..)) {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.busy = true;
        }
        self.learn_all_of(handle);
        // SAFETY: the program asked for the call when the stream comes here, and that is now.
        self.unlocked(|| unsafe {
            match function {
                HostFunction::Plain(function, argument) => function(argument as *mut _),
                HostFunction::Callback(function, stream, argument) => {
                    function(stream, broken.unwrap_or(Code::SUCCESS), argument as *mut _);
                }
            }
        });
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.busy = false;
        }
    }
}

impl Driver {
    /// Gives a stream something to do.
    ///
    /// # Errors
    /// What broke its context.
    pub fn queue(&mut self, handle: u64, name: &str, work: Work) -> Outcome {
        let Some(stream) = self.streams.get(&handle) else { return Err(Code::INVALID_HANDLE) };
        self.usable(stream.context)?;
        self.operations += 1;
        let number = self.operations;
        let mut clock = self.host.clone();
        let mut after = Vec::new();
        for other in self.implicitly_before(handle) {
            let other_stream = &self.streams[&other];
            if other_stream.done < other_stream.queued {
                after.push((other, other_stream.queued));
            } else {
                clock.join(&other_stream.clock);
            }
        }
        let fault = self.fault.take();
        let name = self.calls.label(name).into();
        self.queued = true;
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.queued = number;
            stream.queue.push_back(Op { number, name, clock, after, fault, work });
        }
        Ok(())
    }

    /// The streams that the legacy default stream's rule puts before what is queued now.
    fn implicitly_before(&self, handle: u64) -> Vec<u64> {
        let stream = &self.streams[&handle];
        let Some(context) = self.contexts.get(&stream.context) else { return Vec::new() };
        if context.legacy == handle {
            let others = self
                .streams
                .iter()
                .filter(|(other, of)| **other != handle && of.blocking && of.context == stream.context);
            others.map(|(other, _)| *other).collect()
        } else if stream.blocking {
            vec![context.legacy]
        } else {
            Vec::new()
        }
    }

    /// Whether the goal is reached.
    pub fn reached(&self, (stream, number): Goal) -> bool {
        self.streams.get(&stream).is_none_or(|stream| stream.done >= number)
    }

    /// What a stream is to have done for all that was given to it to be over.
    pub fn all_of(&self, stream: u64) -> Goal {
        (stream, self.streams.get(&stream).map_or(0, |stream| stream.queued))
    }

    /// The host learns that everything this stream has done is over.
    pub fn learn_all_of(&mut self, handle: u64) {
        if let Some(stream) = self.streams.get(&handle) {
            self.host.join(&stream.clock);
        }
    }

    /// Whether the stream is idle and the host knows it.
    pub fn host_knows_all_of(&self, handle: u64) -> bool {
        self.streams.get(&handle).is_none_or(|stream| {
            let last = stream.clock.at(stream.actor);
            stream.done == stream.queued && self.host.at(stream.actor) >= last
        })
    }

    /// Removes a destroyed stream that has done all. What it did stays known to its context.
    pub fn retire(&mut self, handle: u64) {
        let Some(stream) = self.streams.remove(&handle) else { return };
        if let Some(context) = self.contexts.get_mut(&stream.context) {
            context.retired.join(&stream.clock);
        }
    }

    /// Forgets accesses that come before all that is queued and all that can be.
    pub fn forget_the_past(&mut self) {
        let mut horizon = self.host.clone();
        let waiting = self.streams.values().filter_map(|stream| stream.queue.front());
        waiting.for_each(|op| horizon.meet(&op.clock));
        if let Ok(memory) = self.memory_mut() {
            memory.live_mut().for_each(|allocation| crate::race::forget(allocation, &horizon));
        }
    }

    /// The stream's clock as its operation begins.
    fn pass_time(&mut self, handle: u64, op: &Op) {
        let mut clock = op.clock.clone();
        for (other, _) in &op.after {
            if let Some(other) = self.streams.get(other) {
                clock.join(&other.clock);
            }
        }
        if let Work::Wait(record) = &op.work
            && let Some((known, _)) = record.done.get()
        {
            clock.join(known);
        }
        if let Work::WaitValue(wait) = &op.work {
            // The host has written the value after all it knows of, or a stream has.
            clock.join(&self.host);
            self.signals.get(&wait.at).into_iter().for_each(|known| clock.join(known));
        }
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.clock.join(&clock);
            stream.clock.tick(stream.actor);
        }
    }

    fn runnable(&self, handle: u64) -> bool {
        let stream = &self.streams[&handle];
        let free = stream.queue.front().is_some_and(|op| self.blockers(op).is_empty());
        !stream.busy && free && !self.held_by_value(handle)
    }

    /// Streams that must go on before this operation can begin.
    fn blockers(&self, op: &Op) -> Vec<u64> {
        let mut blockers: Vec<u64> =
            op.after.iter().filter(|goal| !self.reached(**goal)).map(|(stream, _)| *stream).collect();
        if let Work::Wait(record) = &op.work
            && record.done.get().is_none()
        {
            blockers.push(record.stream);
        }
        blockers
    }

    /// Streams that can run now and bring the goals nearer.
    fn needed(&self, goals: &[Goal]) -> Vec<u64> {
        let unreached = goals.iter().filter(|goal| !self.reached(**goal));
        let mut waiting: Vec<u64> = unreached.map(|(stream, _)| *stream).collect();
        let (mut seen, mut needed) = (Vec::new(), Vec::new());
        while let Some(handle) = waiting.pop() {
            let Some(stream) = self.streams.get(&handle).filter(|stream| !stream.busy) else { continue };
            if seen.contains(&handle) {
                continue;
            }
            seen.push(handle);
            if let Some(op) = stream.queue.front() {
                let blockers = self.blockers(op);
                if self.held_by_value(handle) {
                    // Any stream may be the one that writes it.
                    waiting.extend(self.streams.keys());
                } else if blockers.is_empty() {
                    needed.push(handle);
                }
                waiting.extend(blockers);
            }
        }
        needed
    }
}
