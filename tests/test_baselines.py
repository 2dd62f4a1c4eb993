"The systems of 2010 with scikit-learn, and against it and scikit-image; without them the tests are skipped"
import json

import numpy as np, pytest, torch
import torch.nn.functional as F

from alexnet_nb.tools import baselines
from alexnet_nb.tools.baselines import Encoder, Patches, Recipe

pytest.importorskip('sklearn')

@pytest.fixture
def squares():
    "Pictures of two classes: stripes across, and stripes down"
    g = np.random.default_rng(0)
    x = np.empty((60, 32, 32, 3), np.uint8)
    for i in range(60):
        wave = np.sin(np.arange(32)*.8+g.random()*6)*60+128
        x[i] = (wave[:,None] if i%2 else wave)[...,None]+g.normal(0, 9, (32,32,3))
    return x

def learn(coder, squares):
    words,dims = (4, 6) if coder=='fisher' else (9, 0)
    recipe = Recipe(coder, Patches('sift', (3,), 5), words, ((1,1),(2,2)), dims)
    return Encoder(recipe, baselines.learn_book(recipe, squares, np.arange(20)))

@pytest.mark.parametrize('coder', ['llc', 'fisher'])
def test_system(squares, coder, tmp_path):
    "Codebook, vectors and classifier tell stripes apart; what is on the disk is used again"
    encode = learn(coder, squares)
    x = baselines.compute_vectors(encode, squares, np.arange(60), tmp_path, 'x')
    assert x[[0,59]].shape==(2, encode.recipe.width)
    assert torch.allclose(x[range(60)].norm(dim=1), torch.ones(60), atol=1e-3)
    y = torch.arange(60)%2
    weights,biases = baselines.train_classifier(x, y, 2, epochs=60)
    assert baselines.measure_errors(baselines.score(x, weights, biases), y)['top1']==0
    stamp = [o.stat().st_mtime_ns for o in tmp_path.iterdir()]
    baselines.compute_vectors(encode, squares, np.arange(60), tmp_path, 'x')
    assert stamp==[o.stat().st_mtime_ns for o in tmp_path.iterdir()]

def test_codebook_is_the_same_again(squares):
    for coder in ('llc', 'fisher'):
        a,b = (learn(coder, squares).book for _ in range(2))
        assert all(torch.equal(a[k], b[k]) for k in a)

def test_fisher_vector_of_skimage(squares):
    feature,mixture = pytest.importorskip('skimage.feature'),pytest.importorskip('sklearn.mixture')
    encode = learn('fisher', squares)
    d = encode.recipe.patches.describe(squares[:3])
    book = encode.book
    model = mixture.GaussianMixture(4, covariance_type='diag')
    model.weights_,model.means_,model.covariances_ = (book[k].double().numpy() for k in ('weights','means','variances'))
    model.precisions_cholesky_ = model.covariances_**-.5
    ours = baselines.encode_fisher(d, book, [torch.zeros(d.shape[1])], [1])
    for i in range(3):
        x = ((d[i]-book['mean'])@book['axes']).double().numpy()
        v = torch.from_numpy(feature.fisher_vector(x, model, improved=True))
        theirs = F.normalize(v[4:], dim=0).float() # behind the gradient of the weights
        theirs[len(theirs)//2:] *= -1              # that of the deviations has the other sign there
        assert torch.allclose(ours[i], theirs, atol=1e-4)

def test_classifier_of_liblinear():
    "The same loss as scikit-learn's, to a thousandth"
    svm = pytest.importorskip('sklearn.svm')
    g = torch.Generator().manual_seed(0)
    y = torch.arange(120)%3
    x = F.normalize(torch.randn(3, 15, generator=g)[y]+torch.randn(120, 15, generator=g))
    decay = 1e-2
    weights,biases = baselines.train_classifier(x, y, 3, decay, epochs=400)
    s = baselines.score(x, weights, biases)
    model = svm.LinearSVC(C=1/(decay*120), loss='squared_hinge', intercept_scaling=30., max_iter=100_000, tol=1e-6)
    theirs = torch.from_numpy(model.fit(x.numpy(), y.numpy()).decision_function(x.numpy())).float()
    assert (s.argmax(1)==theirs.argmax(1)).float().mean()>.97
    assert (s-theirs).abs().max()<.05

def test_tried_recipes_stay(squares, tmp_path):
    "A recipe that was tried is not tried again"
    recipe = Recipe('llc', Patches('sift', (3,), 5), 4, ((1,1),))
    row = dict(recipe=dict(), decay=1e-5, top1=50., top5=0., seconds=1.)
    (tmp_path/f'{recipe.digest}.json').write_text(json.dumps([row]))
    assert baselines.try_recipe(recipe, None, tmp_path)==[row]
