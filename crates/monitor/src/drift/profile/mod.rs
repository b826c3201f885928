//! The numbers and verdicts of other tools, for those who compare with them or move from them.
//!
//! The same data has other numbers in other tools: they bin differently, treat empty bins differently, and take other
//! distances for the verdict. Each profile here does as its tool does, thresholds included. None knows how large the
//! samples are; the gates of the module above do.

pub mod evidently;
pub mod mlrun;
pub mod nannyml;
