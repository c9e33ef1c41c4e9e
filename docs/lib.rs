//! The programs in the README and in the guides, as doc tests.
//!
//! A package of its own: they need every client, and the examples are built without.

#[cfg(doctest)]
mod guides;
