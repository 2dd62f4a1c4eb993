"What torch.hub offers: torch.hub.load('alexnet-nb/alexnet_nb', 'alexnet', spec='code2012')"
dependencies = ['torch', 'fastcore', 'numpy', 'PIL', 'msgspec', 'tqdm']

from alexnet_nb import model as _model  # every name without an underscore would be an entry point

def alexnet(
    spec='code2012', # A name in SPECS, or a table; a file of weights says its own
    weights=None,    # A file, or its address, for load_weights; random weights if not given
    **kw,            # n_classes, width, size, seed of AlexNet; or mean, sha256 of load_weights
):
    "AlexNet as run in 2012, as printed, and their relatives; with weights, in evaluation mode"
    return _model.AlexNet(spec, **kw) if weights is None else _model.load_weights(weights, **kw)
