//! How a forward pass treats what it goes through, shared by a model and its parts: a layer called inside of a loss belongs to
//! that loss's pass.

use std::cell::RefCell;
use std::rc::Rc;

use tch::Device;

use crate::libtorch::grad_enabled;
use crate::nn::{Pass, Place, Registry, RowSampler};

/// A training pass: its place, and the rows that decorrelated layers keep of it.
pub struct Training {
    place: Place,
    sampler: RowSampler,
}

impl Training {
    pub fn new(place: Place, device: Device) -> Rc<Self> {
        Rc::new(Self { sampler: RowSampler::new(&place, device), place })
    }

    pub fn pass(&self) -> Pass<'_> {
        Pass::train(&self.place, &self.sampler)
    }
}

/// The training pass that is under way, if one is.
#[derive(Default)]
pub struct Frame(RefCell<Option<Rc<Training>>>);

impl Frame {
    /// The pass that something called now belongs to: the one under way, else one of its own; `None` where gradients are not
    /// tracked, which is evaluation.
    pub fn current(&self, registry: &Registry) -> Option<Rc<Training>> {
        if !grad_enabled() {
            return None;
        }
        let open = self.0.borrow().clone();
        Some(open.unwrap_or_else(|| Training::new(registry.next_place(), registry.device())))
    }

    /// Makes this the pass under way until what is returned is dropped.
    pub fn open(self: &Rc<Self>, pass: Option<Rc<Training>>) -> Open {
        Open { before: self.0.replace(pass), frame: Rc::clone(self) }
    }
}

/// Goes back to the pass before, however a function was left.
pub struct Open {
    frame: Rc<Frame>,
    before: Option<Rc<Training>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.frame.0.borrow_mut() = self.before.take();
    }
}
