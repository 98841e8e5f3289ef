// A stretch of a model whose inside is computed again in the backward pass (Chen et al. 2016, arXiv:1604.06174).
#include "shim.h"

#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

namespace {

using at::Tensor;
using Run = int (*)(void *, at::Tensor *, at::Tensor **, char *, size_t);
using Release = void (*)(void *);

// A function of the caller's, freed with the graph.
struct Again : torch::CustomClassHolder {
    Run run;
    Release release;
    void *context;

    Again(Run run, Release release, void *context) : run(run), release(release), context(context) {}
    ~Again() override { release(context); }

    Tensor operator()(const Tensor &x) const {
        char message[4096] = "";
        Tensor *out = nullptr;
        if (run(context, new Tensor(x), &out, message, sizeof message) != 0) throw std::runtime_error(message);
        Tensor y = *out;
        delete out;
        return y;
    }
};

// What is no input of the graph.
struct Made {
    Tensor y;
    c10::intrusive_ptr<Again> again;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
    // `anchor` requires a gradient, so that the parameters inside get theirs even where x needs none.
    static Tensor forward(torch::autograd::AutogradContext *context, const Tensor &x, const Tensor &, const Made &made) {
        context->save_for_backward({x});
        context->saved_data["again"] = c10::IValue::make_capsule(made.again);
        return made.y;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                   torch::autograd::variable_list gradients) {
        auto again = c10::static_intrusive_pointer_cast<Again>(context->saved_data["again"].toCapsule());
        bool wanted = context->needs_input_grad(0);
        Tensor x = context->get_saved_variables()[0].detach().requires_grad_(wanted);
        Tensor y;
        {
            at::AutoGradMode tracked(true);
            y = (*again)(x);
        }
        torch::autograd::backward({y}, {gradients[0]});
        return {wanted ? x.grad() : Tensor(), Tensor(), Tensor()};
    }
};

}  // namespace

extern "C" {

// `y`, which `run(x)` makes, as the end of a graph that calls it again. `release(context)` is called once, whatever happens.
int dbp_checkpoint(const at::Tensor *x, const at::Tensor *y, Run run, Release release, void *context, at::Tensor **out,
                   char *error, size_t capacity) {
    auto again = c10::make_intrusive<Again>(run, release, context);
    return guarded(error, capacity, [&] {
        auto anchor = at::empty({0}, x->options().dtype(at::kFloat)).requires_grad_(true);
        *out = new Tensor(Checkpoint::apply(*x, anchor, Made{*y, again}));
    });
}
}
