//! The table of what is measured in the process.

use std::fmt;

use crate::hand::{Effort, Hand};
use crate::load::{Door, Load, Shape, State};
use crate::ours::{Framework, Raw};
use crate::side::Side;

/// What the numbers of a case are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// What telemetry adds to a message: ours to ours without telemetry, the baseline's to the plain dispatch.
    Added,
    /// Ours with telemetry and no SDK, against ours without telemetry.
    NoSdk,
    /// The whole message: ours against the plain dispatch.
    Whole,
}

/// The ratio that a case is to stay under.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// None is set.
    None,
    /// So many nanoseconds more than the baseline.
    Nanoseconds(f64),
    /// So much of the baseline.
    Ratio(f64),
}

/// How many allocations a message may make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allocations {
    /// No more than in the baseline.
    Baseline,
    /// No more than so many.
    Most(f64),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The way into the engine.
    pub door: Door,
    /// What is measured.
    pub load: Load,
    /// How much the baseline does.
    pub effort: Effort,
    /// What the numbers are.
    pub kind: Kind,
    /// The ratio to stay under.
    pub target: Target,
    /// The allocations to stay under.
    pub allocations: Allocations,
}

/// One of the two sides of a case, not yet started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Setup {
    /// The baseline, with what ours records through a door.
    Hand(Load, Door, Effort),
    /// Ours.
    Ours(Load, Door),
}

impl Setup {
    /// Starts the side.
    #[must_use]
    pub fn start(self) -> Box<dyn Side> {
        match self {
            Self::Hand(load, door, effort) => Box::new(Hand::new(load, door, effort)),
            Self::Ours(load, Door::Framework) => Box::new(Framework::new(load)),
            Self::Ours(load, Door::Raw) => Box::new(Raw::new(load)),
        }
    }

    /// Returns what is measured.
    #[must_use]
    pub const fn load(self) -> Load {
        match self {
            Self::Hand(load, ..) | Self::Ours(load, _) => load,
        }
    }
}

impl Case {
    /// Returns what is compared.
    #[must_use]
    pub const fn setups(&self) -> (Setup, Setup) {
        let ours = Setup::Ours(self.load, self.door);
        let baseline = match self.kind {
            Kind::Added => Setup::Hand(self.load, self.door, self.effort),
            Kind::NoSdk => self.without(State::Untraced),
            Kind::Whole => self.plain(),
        };
        (ours, baseline)
    }

    /// Returns what is subtracted from ours and from the baseline, where the numbers are what is added.
    #[must_use]
    pub fn bases(&self) -> Option<(Setup, Setup)> {
        // Alone, metrics are added to an engine that has no SDK.
        let state = if self.load.state == State::Metrics { State::NoSdk } else { State::Untraced };
        (self.kind == Kind::Added).then(|| (self.without(state), self.plain()))
    }

    const fn without(&self, state: State) -> Setup {
        match (self.door, state) {
            // Without an engine the raw door is the plain dispatch.
            (Door::Raw, State::Untraced) => self.plain(),
            _ => Setup::Ours(self.load.with_state(state), self.door),
        }
    }

    const fn plain(&self) -> Setup {
        Setup::Hand(self.load.with_state(State::Untraced), self.door, self.effort)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.door, self.load)?;
        if self.effort == Effort::Lean { f.write_str(", lean baseline") } else { Ok(()) }
    }
}

/// Returns the table.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = untraced();
    for door in [Door::Framework, Door::Raw] {
        cases.push(no_sdk(door, Load::single(State::NoSdk)));
        cases.push(no_sdk(door, Load::single(State::NoSdk).incoming()));
        cases.push(no_sdk(door, Load::single(State::NoSdk).shaped(Shape::Chain)));
        for state in [State::Unsampled, State::Sampled] {
            let single = Load::single(state);
            cases.extend(
                [single, single.incoming(), single.baggage(1), single.baggage(10)].map(|load| added(door, load)),
            );
            cases.extend([Shape::Batch, Shape::Chain].map(|shape| added(door, single.shaped(shape))));
        }
        cases.extend([State::SampledMetrics, State::Metrics].map(|state| added(door, Load::single(state))));
    }
    let lean = [State::Unsampled, State::Sampled].map(|state| added(Door::Raw, Load::single(state)));
    cases.extend(lean.map(|case| Case { effort: Effort::Lean, ..case }));
    cases
}

fn untraced() -> Vec<Case> {
    let whole = |load, target, allocations| Case {
        door: Door::Framework,
        load,
        effort: Effort::Same,
        kind: Kind::Whole,
        target,
        allocations,
    };
    let single = Load::single(State::Untraced);
    vec![
        // 250 ns where the plain dispatch takes 175.
        whole(single, Target::Ratio(250.0 / 175.0), Allocations::Most(2.0)),
        whole(single.shaped(Shape::Batch), Target::None, Allocations::Baseline),
        whole(single.shaped(Shape::Chain), Target::None, Allocations::Baseline),
    ]
}

const fn no_sdk(door: Door, load: Load) -> Case {
    Case {
        door,
        load,
        effort: Effort::Same,
        kind: Kind::NoSdk,
        target: Target::Nanoseconds(50.0),
        allocations: Allocations::Most(0.0),
    }
}

const fn added(door: Door, load: Load) -> Case {
    Case {
        door,
        load,
        effort: Effort::Same,
        kind: Kind::Added,
        target: Target::Ratio(1.1),
        allocations: Allocations::Baseline,
    }
}
