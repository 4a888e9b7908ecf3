"""SmoothGrad and its variants: moments of the gradient over noisy copies of the image."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workers.attribution.method import DTYPE, SEED, Method, colors
from workers.requests.parameters import Parameter

if TYPE_CHECKING:
    from workers.attribution.maps import Attribution, Inputs


def _unit(parameters: Mapping[str, Any]) -> str:
    what = "mean gradient" if parameters.get("variant", "mean") == "mean" else "moments of the gradient"
    return f"{what} of the class's logit with respect to pixels in [0, 1]"


def _compute(inputs: "Inputs") -> "Attribution":
    from workers.attribution.maps import Attribution
    from workers.attribution.smoothgrad import smoothgrad

    made = smoothgrad(
        inputs.model,
        inputs.pixels,
        inputs.targets,
        samples=int(inputs.options["samples"]),
        noise_level=float(inputs.options["noise_level"]),
        seed=int(inputs.options["seed"]),
        variant=str(inputs.options["variant"]),
        agreement=float(inputs.options["agreement"]),
        colours=str(inputs.options["colours"]),
        dtype=str(inputs.options["dtype"]),
        on_progress=inputs.on_progress,
        chunk=inputs.chunk,
    )
    signed = inputs.options["colours"] == "sum" and inputs.options["variant"] == "mean"
    return Attribution(made.map, signed, made.standard_error, made.samples, made.agreement)


METHOD = Method(
    "smoothgrad",
    "SmoothGrad",
    "Smilkov et al., SmoothGrad: removing noise by adding noise, 2017",
    (
        Parameter("samples", 25, "Maximum number of noisy copies of the image.", 1, 1000),
        Parameter(
            "noise_level",
            0.15,
            "Sigma of the noise divided by (max - min) of the image's normalized input.",
            0.0,
            1.0,
        ),
        SEED,
        Parameter(
            "variant",
            "mean",
            "mean: SmoothGrad; squared: the mean of squared gradients (Hooker et al., NeurIPS 2019); "
            "variance: VarGrad (Adebayo et al., 2018).",
            choices=("mean", "squared", "variance"),
        ),
        Parameter(
            "agreement",
            0.5,
            "Stop early once two halves of the samples rank the pixels alike: their Spearman correlation, "
            "with the Spearman-Brown correction. 0 never stops early.",
            0.0,
            0.999,
            label="stop at agreement",
        ),
        colors("max_abs"),
        DTYPE,
    ),
    seeded=True,
    unit=_unit,
    compute=_compute,
)
