#!/usr/bin/env bash
# Run every page in an environment that has JAX but not the package, such as Colab's image:
#   bash tools/colab.sh CHECKOUT [PYTHON]
# The wheel and the notebooks are those that `python tools/wheel.py` put into CHECKOUT/_build/wheel.
# Fails if a page fails or takes more than 90 s, or if JAX is not the one that was there.
set -euo pipefail
checkout=$(realpath "$1")
python=${2:-python3}
limit=${NGEM_PAGE_LIMIT:-90}
versions() {
    "$python" -c 'import importlib.metadata as m
for d in sorted({(d.name or "", d.version) for d in m.distributions()}):
    if d[0].startswith("jax") or d[0] == "numpy": print("==".join(d))'
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
before=$(versions)
# shellcheck disable=SC2086  # a word for each package
"$python" -m pip install --quiet "ngem-tutorial[data,plot,sampling] @ file://$(ls "$checkout"/_build/wheel/*.whl)" $before
cp -r "$checkout/_build/wheel/book" book
slow=0
while IFS= read -r page; do
    start=$SECONDS
    "$python" -m nbconvert --to notebook --execute --inplace --log-level ERROR \
        --ExecutePreprocessor.timeout=600 "$page"
    spent=$((SECONDS - start))
    echo "$page: $spent s"
    if ((spent > limit)); then slow=1; echo "$page: takes more than $limit s"; fi
done < <(find book -name '*.ipynb' | sort)
if [ "$before" != "$(versions)" ]; then
    printf 'JAX or NumPy was replaced: %s\nbefore: %s\n' "$(versions)" "$before"
    exit 1
fi
exit "$slow"
