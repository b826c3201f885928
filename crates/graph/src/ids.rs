//! Dense indices into a plan.

/// A step of a plan: its place in topological order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u32);

/// An edge of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeId(pub u32);

impl StepId {
    /// The index into the plan's steps.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl EdgeId {
    /// The index into the plan's edges.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
