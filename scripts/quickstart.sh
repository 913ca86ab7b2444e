#!/usr/bin/env bash
# The whole way once, on a laptop CPU: generates the elasticity set (unit cells with a void under
# tension, from a finite element solve), trains a FLARE on it, evaluates it, draws its predictions.
# May be run again: what is there is taken as it is.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "$0")/setup.sh" train,viz,generate
flare-geo data generate elasticity --root data/elasticity
flare-geo train --config scripts/configs/elasticity.yaml
flare-geo evaluate runs/elasticity
flare-geo render runs/elasticity
echo "learning curve: runs/elasticity/learning_curve.png"
