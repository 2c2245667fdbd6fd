//! The service over real HTTP on 127.0.0.1, and the loader.
#![cfg(test)]

mod backup;
mod chains;
mod generate;
mod receipts;
mod service;
