"""Time to decode images into the cache, and to open the cache that is there.

python -m benchmarks.cache_build                     # 3,227 phantom images, written as PNG
DDTL_DATA=… python -m benchmarks.cache_build --real  # covid19ct and sarscov2ct
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import finish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="the public datasets in DDTL_DATA")
    parser.add_argument("--size", type=int, default=224)
    arguments = parser.parse_args()
    from ddtl.data.datasets import covid19ct, sarscov2ct
    from ddtl.data.download.published import published_manifest
    from ddtl.data.images.cache import open_cache
    from ddtl.data.phantom import dataset

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if arguments.real:
            data = Path(os.environ["DDTL_DATA"])
            manifests = [published_manifest(covid19ct.ORIGIN, data), published_manifest(sarscov2ct.ORIGIN, data)]
        else:
            spec = dataset.PhantomSpec(n_patients=807, slices_per_patient=4, size=256)
            manifests = [dataset.build_manifest(spec, root)]
        times = []
        for _ in ("cold", "warm"):
            started = time.perf_counter()
            for manifest in manifests:
                open_cache(manifest, size=arguments.size, root=root)
            times.append(time.perf_counter() - started)
        images = sum(map(len, manifests))
    finish(
        benchmark="cache_build", images=images, size=arguments.size, real=arguments.real, build_s=times[0],
        open_s=times[1], images_per_second=images / times[0],
    )  # fmt: skip


if __name__ == "__main__":
    main()
