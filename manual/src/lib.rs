//! What each of our programs tells of itself: completions for the shell and pages for `man`, both made from its
//! command line, so that they cannot fall behind it.
//!
//! A program flattens [`Completions`] and [`Man`] into its subcommands and prints what they render.

mod completions;
mod extra;
mod man;

pub use completions::Completions;
pub use man::{Man, ManError, Section};
