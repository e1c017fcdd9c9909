"""The words of the field, as data: what people call the parts and the numbers of a small GPT and its training.

`BASE` and `COMPOUND` are read by `lab/ideas.py`. A line is `name: what it is also called > what it implies`. A name
implies what may be said beside it without changing the idea: SwiGLU is an activation, in the MLP. Names of one \
section
exclude each other where the section's title ends in `!`: GELU is not SiLU. `COMPOUND` is written in names of `BASE`.
Not covered: words that are not here are themselves what an idea is about.
"""

# Numbers that are turned, and what is counted: adding layers is raising the depth.
BASE = """
# quantity!
lr: lr, all rate, every rate, all learning rate, learning rate, learn rate, lrs, learningrate, rate of learning, \
step size
wd: wd, weight decay, weightdecay, l2 penalty, l2 regularization, decoupled weight decay, l2 reg, wds > \
regularization decay
batch: batch, bs, batch size, batchsize, total batch, total batch size, global batch, global batch size, bsz, tokens \
per step, tokens per batch, tokens per update, effective batch, effective batch size, tokens per optimizer step, \
tokens a step, total bs, batch tokens, token batch, token per iteration, tokens per optimizer update, token step, \
tokens per gradient step, bs token, batch of token, tok step, tok per step, token per update, token per gradient \
update > total token step
devicebatch: device batch, device batch size, micro batch, microbatch, per device batch, per device batch size, mbs, \
micro batch size, microbatch size, per gpu batch, per gpu batch size, row per forward pass, row forward pass, rows \
per forward, rows per device, device bs, per device bs, sequence per forward pass, sequences per forward pass, rows \
per step per gpu, sequence per gpu, row per gpu > accumulation
evalbatch: eval batch size, eval batch, evaluation batch size, evaluation batch > eval
accumulation: gradient accumulation, grad accum, grad accumulation, accumulation step, accum, accumulation, gradient \
accumulation step, grad accum step, ga step, accumulate, accumulate gradient, accumulated gradient, accum step, \
number of accumulation step > gradient step batch
width: width, model dim, d model, n embd, n embed, embedding dim, embedding dimension, hidden size, model width, \
model dimension, dim, dimension, embed dim, residual width, channel width, embd dim, embedding size, residual dim, \
residual stream width, dmodel, embedding width, hidden width, hidden dim, d_model, channels of model, hidden state \
size, model channel, wide, model size > model network channel size
aspect: aspect ratio, width to depth, aspect, width depth ratio, width to depth ratio, width per layer, width per \
layer of depth, \
dim per layer, width per depth, width is > model width depth
headdim: head dim, head size, head dimension, dim per head, head width, d head, hd, per head dim, headdim, width of \
head, channel per head, head channel, head_size, dim of head, dims per head, attention head of width, head of width, \
dims of each head, width per head, head of size, channel of each head, dimension of each head, head dims > attention \
dim
headgain: head gain
momentum: momentum, mom, mu, heavy ball, heavy ball momentum, heavyball, plain momentum, muon momentum coefficient
beta1: beta1, first moment, first moment decay, first moment beta, beta 1, b1, first beta, adam b1, first adam beta, \
gradient ema decay, momentum of adam, adam momentum
beta2: beta2, second moment, second moment decay, second moment beta, beta 2, b2, second beta, adam b2, variance \
decay, second adam beta, second moment ema, square gradient decay, squared gradient decay, second betas
betas: beta, betas, adam betas
eps: eps, epsilon
nssteps: ns step, newton schulz, newton schulz step, newton schulz iteration, ns iteration, ns iter, muon step, \
orthogonalization step, orthogonalization iteration, newton schulz iters, ns5, newton schulz coefficient, ns \
coefficient, newton schulz constant, quintic, quintic newton schulz, polar express step, polar express iteration, \
orthogonaliz step, orthogonaliz iteration, orthogonalization steps, orthogonalisation iteration, ns steps, muon \
iteration, newtonschulz, zeropower > muon orthogonalization polarexpress
softcap: softcap, squash logit, logit squash, tanh squash, tanh squashing of logit, tanh on logit, logit tanh, soft \
cap, logit cap, logit softcap, logit soft cap, logits cap, cap logit, soft capping, tanh cap, output softcap, logit \
capping, tanh softcap, cap on logit, final logit softcap, softcapped, logit soft capping, tanh squashing, cap on the \
logit, capping, logit clamp, clamp logit, squash, soft clamp > logit tanh output
init: init, initialization, initialize, initialisation, initializ, initialise, initial weight, weight init, initial \
scale, initial std, initial, initialised to, initial value, initialiser, initializer, at init, initialised at, init \
value > std scale weight begin zero
clip: clip, clamp gradient norm, clamp gradient, cap gradient norm, cap on gradient norm, cap gradient, clipped, \
clip grad norm, gradient norm clip, grad norm clip, max norm, max grad norm, gradclip, clip \
norm, global norm clip, gradient norm, clip norm of gradient, grad norm clipping, norm clipping, clip grad norm to, \
clip threshold, clip at global norm > gradient norm global threshold model
dropout: dropout, drop out, randomly zero, zero out randomly, randomly drop > random
window: window, sliding window, window size, sliding window size, local window, attention span, window length, \
attention windows, local attention window, win, sliding windows, attention horizon > attention context local size \
span token layer
ropebase: rope base, rope theta, rotary base, rotary theta, rope base frequency, rope frequency, rope freq, base \
theta, rotary base frequency, rope frequency base, rotary frequency base, theta, rope base freq, rotary frequency, \
rope wavelength, rotary embedding base, rotary embedding theta, base frequency, theta base, rotary theta base, rope \
period > rope frequency base position
seqlen: sequence length, seq len, seqlen, context length, context, context size, block size, max seq len, ctx, ctx \
len, ctx length, training sequence length, max sequence length, train seq len, sequence len, token sequence, context \
window, row length, rows of token, training context, training length, train length, tokens per row, \
training sequence, row of token, document length limit > sequence length token
vocab: vocab, vocab size, vocabulary, vocabulary size, bpe vocab, tokenizer vocab, tokenizer size, vocab entry, \
vocabulary entry, number of token type, merges, bpe merge, bpe vocabulary > tokenizer bpe token
seed: seed, random seed, rng seed, prng seed, prng, rng > random
gatechannel: gate channel, gate width, gate dim, gate input channel > gate channel
bucket: bucket, hash bucket, buckets, table size, hash size, slot, table row, hash row > table
temperature: temperature, temp
channel: channel
threshold: threshold
logitscale: logit scale, output multiplier, logit multiplier, output scale, logits scale, lm head multiplier > logit \
output
topk: top k, topk, active experts, top k routing, active expert
expert: expert, number of experts, n experts, num experts > moe
finallr: floor, cosine floor, minimum > lr last warmdown cosine schedule
# counted!
heads: head, n head, num head, number of head, attention head, head count, nhead, query head, n heads, number of \
attention head, q head, num attention head > attention
kvheads: kv head, n kv head, num kv head, key value head, number of kv head, kv head count, kvhead, kv group, number \
of key value head, key value heads, kv head number > attention
depth: depth, layer count, number of layer, n layer, num layer, number of block, nlayer, model depth, transformer \
depth, block count, num block, layers deep, transformer block, number of transformer block, stack depth, block deep, \
layer number, layer total > model network
# part!
embedding: embedding, emb, embed, wte, token embedding, tok emb, input embedding, embd, token emb, word embedding, \
embedding table, tok embed, embedding matrix, token embed, input embed, token embedding table, token embedding \
matrix, token vector, token lookup, embedding lookup, lookup, token table, input token embedding, lookup table > \
token input table
unembedding: unembedding, unembed, lm head, lmhead, output head, output embedding, classifier head, classifier, \
output layer, unemb, head matrix, final projection, unembedding matrix, vocab projection, output token embedding, \
output matrix head, final linear, logit head, vocab head, prediction head, output logit layer > output cproj
ve: ve, value embedding, value embed, value emb, ves, val emb, value embeds, v embed, value embedding table > \
attention
posemb: position embedding, absolute position, learned absolute position, positional embedding, learned position, \
wpe, pos emb, positional encoding, pos embed, \
position encoding, learned position embedding, learned positional embedding, absolute position embedding > position \
learned
bigram: bigram, bigram embedding, bigram hash, bigram hash embedding, hashed bigram, token pair embedding, bigram \
hash table, bigram table, hashed bigrams, bigram hash embed, bigram feature, bigram embed, bigram embedding table > \
hash embedding
matrix: matrix, matrices, block weight, attention and mlp weight, transformer matrix, transformer matrices, block \
param, block matrix, weight matrix, hidden matrix, hidden matrices, 2d parameter, 2d weight, block weights, muon \
matrix, muon group, 2d weights, matrix param, muon param, muon parameter, attention and mlp matrix, attention and \
mlp weights, attention mlp weight, attention + mlp weight, hidden weights, matrix optimizer > weight muon attention \
mlp layer transformer
scalar: scalar, residual and x0 scalar, resid and x0 scalar, resid and x0 lambda, mixing scalar, x0 and resid \
scalar, scalar parameter, 1d parameter, scalars > adam x0 resid lambda residlambda x0lambda skip
mlp: mlp, ffn, feed forward, feedforward, ff, ffw, feed forward network, mlps, mlp block, ffn block
attention: attention, self attention
cproj: c proj, cproj, output projection, out proj, o proj, proj, wo, residual projection, projection, down proj, \
down projection, attention and mlp output projection, attention and mlp projection, residual output projection, \
final projection in block, projections out, out matrix, w o, attn out, proj out, output matrix > output weight \
attention mlp resid unembedding
query: query, q, w q, wq, q proj, w query, queries
key: key, k, w k, wk, k proj
value: value projection, v, w v, value, wv, v proj
qk: qk, query key, query and key, q and k, q k, w q and w k, key and query
qkv: qkv, c attn, wqkv, qkv projection, q k v, q k and v, qkv weight, query key and value, qkv matrix, wq wk wv > \
query key value
upproj: c fc, cfc, up proj, up projection, mlp fc, fc, mlp in, mlp up
x0: x0, x0 skip, x0 residual, x0 path, x0 branch, input embedding skip, embedding skip, first embedding back, \
embedding residual, initial embedding > embedding skip residual input x0lambda
resid: residual, resid, residual stream, residual connection, residual branch
logit: logit, logits
softmax: softmax
gate: gate, gating, gated
lambda: lambda
# place!
first: first, layer 0, first layer, block 0, first block, early, earliest, bottom, lowest layer, bottom half, first \
half, lower half, first few, bottom layer, input side, shallowest > begin
last: last, final, last layer, last block, final layer, late, end, ending, top, deepest, second half, top half, \
upper half, later half, latter half, final half, closing, last few, top layer, concluding, output side
middle: middle, mid, center, centre, halfway, midpoint, center layer
odd: odd
thirdly: thirdly
fourthly: fourthly
every: every layer, all layer, each layer, all block, every block, each block, every, all, everywhere, throughout, \
whole model, whole stack, in all
alternate: alternate, every other layer, every other, every second layer, alternating, alternate layer, interleave, \
interleaved, every second block, every other block, even, one by one, alternately, every two, one of two > step
begin: start, starting, begin, beginning, initially, at start, onset > first init
# moment!
warmup: warmup, warm up, warming, ramp up, rampup, warmup phase, warmup ratio, warmup fraction, warmup frac, warmup \
step, warmup iters, warmup period, wu, warming up, warms up, warm ups, ramp-up phase, linear ramp, ramp in, warm up \
phase, gradual start, lr ramp > linear lr schedule ratio step first
warmdown: warmdown, cool, cooling, fade, linear decay phase, warm down, cooldown, cool down, decay phase, ramp down, \
rampdown, anneal, warmdown ratio, warmdown fraction, warmdown frac, cooldown fraction, cooldown ratio, cooldown \
frac, decay fraction, annealing phase, cooldown phase, decay ratio, decay frac, warmdown phase, warmdown step, decay \
period, decay window, annealing, annealed, cools down, ramp-down phase, cool off, wind down, cooling phase, lr decay \
phase, decay stage, tail decay > decay linear lr schedule ratio step last
# activation! > activation mlp
relu: relu
relu2: relu2, relu squared, squared relu, relu 2, relusq, relu sq, relu square, sqrelu, square relu, relu power 2, \
squared rectifier, squared relus, relu and square, relusquared
relu3: relu3, relu cubed, cubed relu, relu 3
leakyrelu: leaky relu, leakyrelu
leakyrelu2: leaky relu squared, leaky relu2, squared leaky relu, leaky relu 2
gelu: gelu, gelus, tanh gelu, gelu tanh
silu: silu, swish
swiglu: swiglu, gated silu, gated swish, swi glu, swish glu, silu glu, silu gated, silu gated mlp, gated mlp with \
silu, silu gate, gated silu mlp, swish gated, gated mlp silu, silu gated linear unit > gate glu silu activation
geglu: geglu, gated gelu, gelu glu, ge glu, gelu gated, gated mlp with gelu, gelu gate, gelu gated mlp > gate glu \
gelu
reglu: reglu, re glu, relu glu, relu gated > gate glu
glu: glu, gated linear unit, gated mlp, gated ffn, gated feed forward > gate
mish: mish
elu: elu
selu: selu
softplus: softplus
laplace: laplace activation
hardswish: hardswish, hard swish
prelu: prelu, parametric relu
sine: sine, snake
# norm kind! > norm
rmsnorm: rmsnorm, rms normalization, rms norm, root mean square norm, root mean square layer norm, rms_norm, root \
mean square normalization, rms > norm
layernorm: layernorm, layer norm, ln > norm
batchnorm: batchnorm, batch norm > norm
groupnorm: groupnorm, group norm > norm
qknorm: qk norm, qknorm, query key norm, norm on qk, norm on q k, norm qk, norm query and key, norm q and k, norm \
query key, norm query key vector, norm of q and k, qk layernorm, qk rmsnorm, rmsnorm qk, rmsnorm on qk, qk \
normalization, norm on query and key, rmsnorm on query and key, rmsnorm on q and k, qk rms norm, norm for q and k, \
rms norm query and key, norm query and key before attention, norm q and k before attention, norm to q and k, norm to \
query and key, rmsnorm to q and k, rmsnorm q and k, rmsnorm to query and key, normalise query and key, norm on query \
key, query and key norm, q norm and k norm, norm of query and key, normalised query key, l2 norm on qk, unit norm \
query key > norm attention qk query key
vnorm: v norm, value norm > norm attention
dyt: dyt, dynamic tanh > norm tanh
weightnorm: weight norm, weightnorm > norm
# norm place!
prenorm: pre norm, prenorm, pre ln, norm before sublayer, pre layernorm, norm on sublayer input > norm layernorm \
input before
postnorm: post norm, postnorm, post ln, norm behind, norm after residual add, norm after residual, norm after \
sublayer, norm behind residual, norm on sublayer output, post layernorm, output norm > norm layernorm resid output \
after
sandwich: sandwich norm, sandwich, peri ln, peri norm, norm before and after, norm both before and after, norm \
before and after each sublayer, pre and post norm, both pre and post norm, additional norm on output, extra norm on \
output, norm both side, double norm > norm sublayer before after output prenorm postnorm
finalnorm: final norm, norm before lm head, output norm, norm before head, final rmsnorm, final layernorm, last \
norm, norm before unembedding, norm before output head, norm before logit, norm ahead of head, head norm, norm in \
front lm head, norm in front of lm head, ln f, norm f, lnf > norm unembedding before
embnorm: embedding norm, norm after embedding, embed norm, emb norm, norm on embedding, norm embedding, norm after \
token embedding, norm after lookup, norm after token lookup, norm right after embedding, embedding layernorm, norm \
following embedding > norm embedding after token
# optimizer! > optimizer
adam: adam, adamw, adam w
muon: muon > matrix
normuon: normuon, nor muon, per neuron second moment, neuron wise normalization, per neuron normalization, \
neuronwise > muon norm beta2
lion: lion, lion optimizer, evolved sign momentum
sgd: sgd, plain sgd, vanilla sgd
shampoo: shampoo
soap: soap
sophia: sophia
adafactor: adafactor
lamb: lamb
schedulefree: schedule free, schedulefree
prodigy: prodigy
ademamix: ademamix
adopt: adopt optimizer
nadam: nadam, nesterov adam, nadamw
rmsprop: rmsprop
adagrad: adagrad
psgd: psgd, kron
dion: dion
mars: mars
adammini: adam mini
# shape! > schedule decay lr warmdown
cosine: cosine, cos, cosine decay, cosine anneal, half cosine, cosine shape, cosine shaped, cosine annealing, cosine \
lr, cosine curve, half cosine decay, math cos, cos pi > decay warmdown
linear: linear, linearly, linear decay, linear schedule, straight line
wsd: wsd, warmup stable decay, long constant phase then decay, constant then decay, stable phase, constant phase, \
plateau > warmup decay warmdown constant trapezoid linear
trapezoid: trapezoid, trapezoidal, constant then linear decay, trapezoid schedule > decay warmup warmdown wsd linear
sqrt: sqrt, square root, 1 sqrt, 1 minus sqrt, one minus sqrt, one minus square root, square root shape, sqrt shape, \
root
inversesqrt: inverse sqrt, inverse square root, rsqrt, inv sqrt
constant: constant, flat lr, fixed, const, held, hold, stay, flat, kept constant, instead of fading
exponential: exponential, exp decay, exponentially, exp shape, geometric
polynomial: polynomial, poly
quadratic: quadratic
onecycle: one cycle, onecycle, 1cycle
cyclic: cyclic, cyclical, restart, warm restart, sgdr
stepdecay: step decay, stepwise, staircase, step wise decay, drop at, staircase decay, milestone, multi step
# position! > position attention
rope: rope, rotary, rotary embedding, rotary position embedding, rotary positional embedding, rotary pos emb, \
rotates, rotated, rotate, rotation > position embedding
partialrope: partial rope, half rotary, partial rotary, rope on half the dim, half rope, partial rotary embedding, \
rotate only part, rope on part of dim, rope on only half, rope on half, rotate half dims, rope on quarter, rope to \
half, rope fraction, rotary fraction, rotary percentage, rotary pct, rotate only > rope position headdim channel \
heads
alibi: alibi, alibi slope, linear bias by distance, alibi bias > position bias attention
nope: nope, no rope, no rotary, without rope, without rotary, no positional encoding, no position embedding, no \
positional embedding, no positions, no position encoding, no position at all, skip rotary embedding, skip rope, \
remove rope, remove rotary, drop rope, drop rotary, without position, without position encoding, get rid of \
positional encoding, get rid positional encoding, no positional, skip rotary, throw out rope, rope free, disable \
rope, turn off rope > position rope posemb
yarn: yarn > rope
sinusoidal: sinusoidal, sinusoid > position embedding
xpos: xpos > position
relativebias: relative position bias, relative bias, t5 bias, bias per relative distance, relative position, \
relative distance > bias position attention
# attention kind!
mha: mha, multi head attention, full multi head attention, full multi head, full head, multihead attention, standard \
multi head attention, vanilla attention > attention kvheads heads
gqa: gqa, grouped query attention, grouped query, group query attention, grouped queries, group query, grouped kv > \
attention kvheads heads query
mqa: mqa, multi query attention, multi query, multiquery attention, multiquery, single kv head, one kv head, n kv \
head 1, share single key head, single key head, single shared kv head, one key head, one key value head, single key \
value head, one shared kv head, shared key value head, mqa attention > attention kvheads heads key value sharing \
query
mla: mla, multi head latent attention, latent attention > attention
linearattention: linear attention > attention
diffattention: differential attention, diff attention, diff transformer, differential transformer, difference of two \
softmax map, difference of two softmax, difference of two attention map, diff attn, difference of softmax > \
attention softmax
fullattention: full attention, window pattern l, full context attention, full window, global attention, dense \
attention, full causal attention, full context, full length window, global window, full attention window, long \
window, long layer, full causal, all long, window full length, no sliding window, full window everywhere, full \
context in all layer, without sliding window, windows full length, all window full length, l layer, whole sequence, \
full sequence, entire sequence, attend everything, attend to everything, unrestricted attention, no window, without \
window, no local attention > attention window long every
slidingattention: sliding window attention, local attention, windowed attention, banded attention, swa layer, local \
window attention > attention window local short
gatedattention: gated attention, attention gate, attention output gate, gate attention output, gate on attention \
output, head gate, gate per head on attention output, sigmoid gate on attention output, gate attention, head gating, \
per head gate, sigmoid gate on head, attention head gate, gate on each head's output, gate each head, head gating \
after attention > attention gate output sigmoid heads perhead input
sink: attention sink, sink token, sink, sink logit, attention sink logit, learned sink, softmax sink, softmax1, off \
by one softmax, quiet attention, sink per head > attention logit softmax softmaxdenominator perhead
talking: talking head > attention
flash: flash attention, flashattention, fa2, fa3, flash, flash attn, flash attention kernel, flashattention kernel > \
attention kernel
sdpa: sdpa, scaled dot product attention, torch sdpa, scale dot product attention > attention kernel
flex: flex attention, flexattention > attention
sigmoidattention: sigmoid attention, sigmoid instead of softmax > attention softmax
# precision! > linear matmul weight
bf16: bf16, bfloat16, bfloat, brain float
fp16: fp16, float16, half precision
fp8: fp8, float8, e4m3, float 8, fp 8, 8 bit float > scale
fp32: fp32, float32, full precision, f32, master weight in float32, single precision
tf32: tf32
int8: int8
# object
norm: norm, normaliz, normalization, normaliser, normalise, normalize, normed, normalised, normalized, norms, \
normalizing, normalising
activation: activation, nonlinearity, non linearity, act fn, act, activation function, activation fn > mlp
optimizer: optimizer, optimiser, optim
schedule: schedule, scheduler, curve, shape, profile, lr schedule, lr scheduler, sched, decay schedule, decay shape \
> decay lr
decay: decay > wd
regularization: regularization, regulariz, regularise, regularisation
tying: tying, tie, tied, weight tying, tie weight, tie embedding, tied embedding, embedding tying, tied weight, \
share embedding, shared embedding, weight sharing embedding, tie lm head, share input and output embedding, tie \
input and output embedding, share wte and lm head, tie wte and lm head, tie embedding and unembedding, tie lm head \
to embedding, tie lm head to wte, share embedding and unembedding, share embedding and lm head, tie embedding and lm \
head, tie unembedding to embedding, tie input output embedding, share embedding with lm head, tie lm head with \
embedding, tie lm head and embedding, tie lm head and wte, tie wte with lm head, tie wte to lm head, tie lm head to \
token embedding, tie lm head with token embedding, tie lm head with wte, weight sharing, share input output \
embedding, single matrix for input and output embedding, one matrix for embedding and unembedding, tied head, share \
token embedding and head > embedding unembedding weight matrix input output token
labelsmoothing: label smooth, smooth target, smooth label, soften target, soft target, labelsmoothing, smooth one \
hot, smoothed label, smoothed target, target smoothing, smooth target by > loss crossentropy
zloss: z loss, log z, logz, log partition, zloss, logsumexp penalty, log z penalty, logsumexp, logsumexp of logit, \
log sum exp, squared log partition, logsumexp logit, lse, log partition function > loss logit penalty weight square
auxloss: aux loss, auxiliary loss > loss
mtp: mtp, multi token prediction, predict two token, predict two token ahead, predict next two token, multi token, \
token after next, predict token after next, tokens ahead, token ahead, predict several token, extra prediction head, \
second next token, predict two next token, next two token, mtp head, token t, second next, predict token t, next \
next token > loss auxloss heads token scale weight
loss: loss
ema: ema, average of weight, exponential moving average of weight, exponential moving average of param, average \
weight over, running average of weight, exponential moving average, weight averag, polyak, weight average, moving \
average of weight, average weight, weight averaging, moving average, averaged weight, ema of weight, weight ema, \
param ema, ema param, ema model, shadow weight, exponential average of weight, exponentially averaged weight > \
weight eval decay
skip: skip, skip connection, shortcut, shortcut connection, residual skip > first last layer
residscale: residual scale, residual scaling, scale residual, resid scale, residual branch scale, residual scalar, \
residual multiplier, residual_scale, scale of residual, residual branch multiplier > resid scale \
residlambda lambda
layerscale: layerscale, layer scale, per channel residual scale, per channel scale on branch, learned scale on \
branch, per channel learned scale, channel scale, learned per channel scale, layerscale gain > scale learned \
sublayer output perchannel attention mlp init
rezero: rezero, zero init residual gate, residual gate
droppath: stochastic depth, skip whole block, randomly skip block, randomly skip layer, randomly drop layer, \
randomly drop block, drop path, droppath, layer drop, layerdrop, layer dropout, drop whole block, drop whole layer, \
drop whole residual branch, random layer dropping, drop entire block, bypass block randomly > layer random \
skip
parallel: parallel, side by side, parallel block, parallel attention mlp, parallel attention and mlp, parallel \
residual, parallel attn, attention and mlp in parallel, attention mlp parallel, attention parallel to mlp, parallel \
attention mlp block, mlp in parallel with attention, attention in parallel with mlp, attention and ffn in parallel, \
mlp and attention in parallel, palm style, palm, gpt j style, gpt j, gptj, parallel sublayer, same normed input, \
from same norm, in parallel > attention mlp resid block
moe: moe, mixture of four expert, mixture of two expert, mixture of eight expert, mixture of expert, mixture, expert \
layer, sparse mlp, switch transformer, router pick best, n expert of which > expert mlp router topk token
bias: bias, linear bias, biases, bias term, bias vector, linear bias term, with bias, bias parameter > linear layer \
cproj
tokenshift: token shift, tokenshift, smear, smear gate, previous token mix, shift token, smearing, shifted token, \
token smear, token mixing, token mix, time shift, time mix, mix previous token, mix in previous token > token gate \
input previoustoken embedding
conv: conv, canon, canon style, convolution, short conv, causal conv, depthwise conv, short convolution, conv1d, \
depthwise causal conv, \
depthwise convolution, causal convolution, depthwise causal convolution, 1d conv, short causal conv, causal conv1d, \
depthwise conv1d, depthwise causal conv1d, canon layer > width
hyper: hyper connection, hyperconnection, hyper connections, mhc, hyperconnections, multi stream residual > resid
valueresidual: value residual, v residual, value resid, resformer, mix first layer v, first layer's v, first layer \
v, v residual learning, value residual learning > attention ve value first layer mix
nesterov: nesterov, nesterov look ahead, nesterov momentum, nesterov lookahead, look ahead momentum, nesterov style \
> momentum
cautious: cautious, caution, cautious mask, cautious update, sign agreement, sign agreement check, sign check, agree \
in sign, sign agree, disagree, disagree with gradient, agreement check, whose sign differ, sign differ, sign \
disagree, cautious weight decay, cautious wd, cautious decay, cautious wd mask, cautious adam, c adamw, sign mask, \
agree, agree with sign, sign of update, agree with sign of update > mask gradient wd sign update
gradient: gradient, grad, grads
compile: compile, torch compile, torchcompile, compiled, compiler, inductor, dynamo, torch compiled, jit
cudagraph: cuda graph, cudagraph, reduce overhead, cuda graphs, graph capture, capture step, captured graph, \
cudagraphs > step
checkpointing: checkpoint, gradient checkpoint, activation checkpoint, activation recompute, recompute, activation \
recomputation, rematerialization, remat, recompute activation, gradient checkpointing, activation checkpointing
fused: fused, fuse, fusion, fusing, single matmul, one matmul, concatenated, concatenat, concatenate, single matrix \
multiplication, one matrix multiplication, single gemm > matmul matrix
curriculum: curriculum, progressive, staged, gradually > schedule order
doc: document, doc, text, example, sample, article, documents
shuffle: shuffl, random order, random document order, randomize order, shuffle, shuffled, shuffling, random \
permutation, permute, reshuffle > random order
packing: packing, pack, bin packing
docmask: document mask, attention across document boundary, per document causal mask, per document mask, document \
boundary, attend across document, attention across document, doc mask, intra document mask, document mask attention, \
document boundary mask, mask across document, cross document mask, document attention mask, block diagonal mask, \
intra document, mask attention across document, cross document attention, document masking, per document attention, \
mask cross document attention, block diagonal, block diagonal causal mask, document level attention mask, attend \
within document, within document attention, attention within document, doc level mask, document causal mask, varlen \
attention, no cross document attention, per doc mask, mask at document boundary, cannot look across document > \
attention mask boundary doc layer
bos: bos, bos token, begin of sequence, begin of document token, start token, document separator, eos, separator \
token
tokenizer: tokenizer, tokeniser, pre tokenizer, pretokenizer, pre tokeniser, tokenise, tokenize, tokenization, \
tokenisation, pretokenization, pre tokenization, pre tokenisation, pretokeniser, pre token > token
hash: hash, hashed
mup: mup, mu p, maximal update, parametrization, parameterization, maximal update parametrization, maximal update \
parameterization, mup scaling, u p, coordinate check > width lr scale
flops: flop
attnscale: attention scale, sm scale, sm, softmax scale, attention temperature, softmax temperature, attention \
logit scale, attn \
temp, scale attention logit, qk scale, per head temperature, qk temperature, attention sharpness, query scale, scale \
on query, attention multiplier, learned temperature, sharpness, qk logit scale, scale on qk logit, temperature per \
head, softmax temperature per head, scale per head on qk > attention scale softmax temperature query key
order: order, sort, sorted, sorting, data order, data ordering > data curriculum
prefetch: prefetch, prefetching, overlap, host to device copy, async copy, side stream, double buffer, double \
buffering, non blocking, pipelined, h2d copy, overlap copy, overlapped, copy stream, preload > batch next
pinned: pinned, pin memory
worker: worker
asynchronous: async, asynchronous, asynchronously, background thread, in background
lookahead: lookahead
mixup: mixup, interpolate embedding, manifold mixup > mix embedding
noise: noise, noisy, gaussian noise, gradient noise, langevin
entropy: entropy
recurrence: recurrence, recurrent, weight shared layer, universal transformer, share layer weight, layer sharing, \
depth recurrence, layer recurrence, repeat block, repeat layer, loop block, looped, loop layer, loop middle layer, \
run block twice, run layer twice, apply block twice, apply layer twice, repeat, repeated, recurrent depth, run \
middle block twice, weight tied loop > layer depth
garbage: gc, garbage collection, garbage collector, python gc, garbage collect, gc pause, cyclic gc
crossentropy: cross entropy, ce, crossentropy, ce loss, xent, cross entropy loss, nll, negative log likelihood > \
loss
chunked: chunk, chunked, chunkwise, in chunk, chunked loss, slice, at time, piecewise, block by block, tile, tiled, \
tiling, never materialis, never materializ, materialis, materializ > loss crossentropy logit token
router: router, routing, route, routed, gating network, token choice, token choice routing
expertchoice: expert choice, expert choice routing > router
spectral: spectral, spectral norm, spectral normalization, spectral constraint > norm
centralize: centralis, centraliz, centralise, centralize, gradient centralization, gradient centralisation, subtract \
mean, subtract row mean, zero mean gradient, mean subtraction, remove mean, center gradient > gradient
sublayer: sublayer, sub layer, branch, sub block > layer output attention mlp
softmaxdenominator: denominator, softmax denominator > sink softmax
follow: follow, proportional, coupled, couple, tied to, proportional to, track, in proportion, scale with, decoupled \
from
wallclock: wall clock, wallclock, elapsed time, elapsed second, wall time, clock time, time based, elapsed
ropecache: rope cache, rotary cache, rotary precompute, precompute, precomputed, cos sin cache, rope table, rope \
buffer, rotary buffer > rope
state: state, moments, optimizer moment, optimizer moments, buffer, momentum buffer, moment buffer, optimizer state \
> momentum optimizer
previoustoken: previous token, prior token, preceding token, last token's > tokenshift
swa: swa, stochastic weight average, stochastic weight averag, checkpoint average, checkpoint averag, average \
checkpoint, averag checkpoint, average last checkpoint, checkpoint soup, model soup, weight soup, uniform weight \
average, uniform weight averag, average weight over last, latest weight average, lawa > ema weight eval last \
checkpointing
digit: digit, digits, number split
regex: regex, regular expression > tokenizer
docfilter: filter, filter out, filtered, filtering
dilated: dilated, dilation
lowrank: low rank, factoris, factoriz, factorisation, factorization, factorised, factorized, bottleneck, low rank \
factorisation, low rank factorization > matrix
penalty: penaliz, penalis, penalty, penalise, penalize > loss
sigmoid: sigmoid
tanh: tanh
exponent: exponent, power
slope: slope, negative slope
tail: tail
recycle: recycle
dataloader: dataloader, data loader, loader, data loading, input pipeline, batch loader > data
next: next, upcoming, coming
autotune: autotune, max autotune, autotuning, autotun, max autotune mode, autotuner > compile mode kernel
kernel: kernel, kernels, triton, triton kernel, custom kernel
sync: sync, synchroniz, synchronis, synchronization, cuda sync, gpu sync, item call, item, loss item, cpu sync, host \
sync
logging: log, logging, print, printing, logged
paddedvocab: pad vocab, padded vocab, vocab padding, padding vocab, pad vocab size > vocab
padding: pad, padding, padded
orthogonalization: orthogonaliz, orthogonalize, orthogonalise, orthogonalisation, orthogonalization, orthogonalised, \
orthogonalized, orthogonalising > nssteps matrix muon
polarexpress: polar express > nssteps orthogonalization
transpose: transpose, transposed, transposing
sign: sign
update: update, updates, step update
rmsmatching: rms matching, rms match, moonlight, update rms, match adam rms, match update rms > scale muon update
shapescale: max 1 rows cols, rows cols, aspect scaling, shape dependent scaling, shape factor, shape dependent lr, \
shape scaling, row col ratio, max rows cols > muon lr scale
widthscale: width dependent lr, dim 768, width scaling, lr width scaling, width dependent, dmodel lr scale, model \
dim lr scaling, width scaled lr > lr scale width adam ratio
decoupled: decoupled
adjacent: adjacent, neighbour, neighbor, consecutive, neighbouring, neighboring, successive, next to each other > \
layer
pair: pair, pairs, couple of
mix: mix, blend, mixing, combine, interpolat, interpolate
backout: backout, back out
subtract: subtract, subtraction, subtracting, minus
stateless: stateless
gain: gain vector, trainable gain, learned gain, learned scale vector, affine, elementwise affine, trainable scale, \
learned scale, learnable gain, learnable scale, own scale > scale learned norm
nonzero: nonzero, random not zero, not zero, non zero
svd: svd, truncated svd, singular value
cooc: co occurrence, cooccurrence, count matrix
depthinit: depthinit, depth scaled init, depth dependent init, depth wise init, depthwise init, init scaled by \
depth, scale init by depth, layer dependent init, init shrink with depth, gpt 2 init, gpt 2 residual init, gpt2 \
init, residual init scaling, 1 sqrt 2l > init depth layer inversesqrt scale std resid cproj
index: index, idx, layer idx
separate: separate, separately, own, distinct, independent, untied matrix, split, splitting
boundary: boundary, boundaries, edge, border
master: master weight, master copy, master param
bestfit: best fit, best fit bin, bestfit, best fit bin packing > packing
greedy: greedy, greedily
dedup: deduplicate, dedup, deduplication, duplicate, near duplicate, remove duplicate > data doc
lossscale: loss scaling, gradscaler, grad scaler, loss scale, dynamic loss scaling, gradient scaler > fp16
amp: mixed precision, autocast, amp
pool: pool, pooling, mean pool
remainder: remainder, incomplete, leftover, ragged
unigramcount: unigram count, token frequency, frequency of token, unigram frequency, log frequency, unigram
raretoken: rare token, infrequent token, rare
perplexity: perplexity, ppl
entropyreg: entropy penalty, entropy bonus
gradnoise: gradient noise, noise on gradient
adaptive: adaptive, adaptive softmax, adaptive input
distill: distillation, distil, teacher, student, self distillation, knowledge distillation > loss
contrastive: contrastive, infonce
focal: focal, focal loss
unlikelihood: unlikelihood
ngram: ngram, n gram, trigram, skipgram, skip gram
copyhead: pointer, copy mechanism, copy head
memory: memory token, persistent memory, register token, register, memory slot, meta token > token
prefix: prefix, prefix token, prefix lm
fim: fill in the middle, fim
ssm: state space, mamba, ssm, s4, gated deltanet, delta net, deltanet, rwkv, retnet, retention
hybrid: hybrid
mod: mixture of depths, early exit, layer skipping
sam: sharpness aware, sam optimizer, sam
gradientclipadaptive: adaptive gradient clip, agc
gradientsum: gradient accumulation in fp32
reset: reset, reinitialise, reinit, reinitialize
growth: progressive stacking, layer growth, net2net, model growth, stack layer, grow depth
warmstart: warm start, init from checkpoint, pretrained, transfer from checkpoint
tune: sweep
offload: offload, cpu offload
lora: lora
kronecker: kronecker
quantize: quantize, quantise, quantization, quantisation, qat, fake quant, bit, bits, post training quantization, \
ptq
sparsity: sparse, sparsity, prune weights, pruning
multiplicative: multiplicative
sequenceparallel: ddp, fsdp, zero redundancy, data parallel, tensor parallel
evalonly: eval every, evaluate every, evaluation interval, eval interval, validation interval
stepscount: total step, number of steps, max iter, max step, training step count
# distribution!
orthogonal: orthogonal, orthonormal, orthogonally
truncated: truncated, trunc normal, truncated normal
xavier: xavier, glorot
kaiming: kaiming, he init
zero: zero, zeros, all zero, zeroed
uniform: uniform, uniform init, uniform distribution
gaussian: gaussian, normal, normally, normal distribution, gaussian init, randn, normal init, draw from n, drawn \
from n, n 0
identity: identity, eye
# contrast a!
easy: easy, easiest, easier
hard: hard, hardest, harder, difficult
# contrast b!
short: short, shortest, s layer, short layer, short window, short window layer, sliding window layer, local layer > \
window layer
long: long, longest
# contrast c!
upweight: upweight, overweight, oversample
downweight: downweight, underweight, undersample
# contrast d!
allow: allow, permit
forbid: forbid, disallow
# contrast e!
before: before, ahead of, prior to, in front, in front of, prior, preceding, precede, ahead, upstream of, pre
after: after, behind, following, follow up, downstream of, post, subsequent
# contrast f!
learned: learned, learnable, trainable, learn, learnt, trained parameter
frozen: frozen, stop updating, not updated, never update, no update, freeze, freezing, fixed not trained, not \
learned, untrained, non trainable, stop training, without \
gradient
# contrast g!
sequential: sequential, sequentially
random: random, randomly, randomize
# contrast h!
elementwise: elementwise, per element, by value
global: global
perhead: per head, headwise, head wise
perlayer: per layer, layerwise, layer wise, each layer's
perchannel: per channel, channelwise, channel wise
pertoken: per token, tokenwise
# skip kind!
unet: u net, unet, u net skip, unet skip, u net skip connection, unet skip connection, u shaped skip, encoder \
decoder skip, mirror layer, mirrored layer, mirror, mirrored, long skip > skip first last layer residual
denseskip: dense skip, densenet, denseformer, dense connection > skip
# tokenizer kind!
bytelevel: byte level, raw byte, raw bytes, byte tokenizer, byte vocab, no merge, byte level vocab, byte level \
tokenizer, byte, utf, utf 8 > tokenizer vocab bpe
bpe: bpe, byte pair encoding, byte pair > tokenizer vocab
unigramlm: unigram, unigram lm, sentencepiece unigram, unigram tokenizer, sentencepiece > tokenizer
wordpiece: wordpiece > tokenizer
charlevel: character level, char level, character tokenizer > tokenizer vocab
# contrast j!
trainonly: trainonly
valonly: valonly > eval
# contrast i!
slow: slow, slower, slowly, gradual, gradually
fast: fast, faster, quick, quicker, quickly, abrupt, rapid
# soft
mask: mask, masked
token: token
matmul: matmul, gemm, matrix multiplication, matrix multiply, matrix product
std: std, stddev, standard deviation, sigma, stdev
expansion: expansion
scale: scale, scaled, multiply, multiplied, factor, multiplier, mult, gain, coefficient, coef, coeff
sharing: share, sharing, shared, reuse, reused, reusing, common, same parameter, same weight, use same parameter, \
use same weight, single set, one set, albert
square: square, squared
ratio: ratio, rate, rates, fraction, frac, proportion, percentage, percent
layer: layer, block, transformer layer, transformer block
weight: weight, param, parameter, params
model: model, network, net, transformer, gpt, architecture, arch
size: size, amount, number, count, total, length
step: step, iteration, iter
input: input
output: output
hidden: hidden
base: base, frequency, freq
position: position, positional
local: local
table: table
data: data
context: span
eval: eval, evaluation, validation, evaluated, evaluate, at eval, evaluating, val
progress: progress, fraction of run, training progress
mode: mode
sequence: sequence, row
gpt2: gpt2
"""

# What names of BASE mean together.
COMPOUND = """
# quantity!
finallr: last lr, min lr, minimum lr, lr floor, lr min, lr last, eta min, floor lr, last lr ratio, min lr ratio, \
minimum lr ratio, lr floor ratio, last ratio of lr, lr at last, floor of lr, last lr scale, floor on lr, lr at the \
last, lowest lr, residual lr, last lr floor, lr decay floor, warmdown floor, schedule floor, decay to ratio of peak \
lr, decay lr to, lr decay to, decay lr down to, decay lr all way to, decay lr way to, decay every way to, lr begin \
last, peak lr ratio, lr ratio peak, lr finallr, finallr lr, finallr of lr, warmdown finallr > warmdown last decay \
schedule ratio peak
mlpratio: mlp ratio, mlp hidden, mlp expansion, mlp hidden ratio, mlp scale, mlp width, expansion ratio, expansion \
scale, mlp hidden size, mlp hidden width, mlp hidden scale, mlp expansion ratio, mlp expansion scale, mlp size, \
intermediate size, mlp inner width, hidden mlp width, mlp intermediate size, mlp up ratio, mlp hidden layer, hidden \
width of mlp, mlp hidden expansion, inner width, hidden expansion, mlp width scale, mlp dim, hidden scale of mlp, \
hidden size of mlp, expansion of mlp, width of mlp, mlp hidden dim, hidden layer of mlp, mlp inner size, mlp \
widening, width mlp, expansion in mlp, hidden mlp > mlp hidden
warmup: ramp lr raise, lr ramp raise, ramp raise lr
leakyrelu2: leakyrelu square, square leakyrelu
decay: last lr decay, lr decay, decay lr
relu2: relu square, square relu
warmup: first warmup
embedding: first embedding
tying: sharing embedding with cproj, sharing embedding and cproj, sharing cproj with embedding, sharing embedding \
unembedding, sharing embedding with unembedding
wdschedule: wd schedule, schedule wd, decay wd, wd decay, wd decay schedule, schedule for wd > decay wd schedule \
warmdown
headdim: heads width, width heads, channel heads, heads channel, size heads, heads size
gatechannel: gate channel, channel gate, ve gate channel, value gate channel, channel ve gate, input channel ve \
gate, channel gate ve > gate channel input ve value
# counted!
kvheads: kvheads
depth: transformer layer
# object
embnorm: embedding norm, norm embedding, norm after embedding, norm on embedding, norm for embedding, norm to \
embedding, rmsnorm after embedding, layernorm after embedding, after embedding norm, rmsnorm embedding
qknorm: qk norm, norm qk, qk rmsnorm, qk layernorm, query key norm, rmsnorm qk
valueresidual: first layer value, first value, value first layer, value first
finalnorm: last norm, last rmsnorm, last layernorm, norm before unembedding, rmsnorm before unembedding
sink: softmaxdenominator, softmax softmaxdenominator
vegate: ve gate, gate ve, value gate, gate value, gate on ve, gate for ve > ve gate value
# scalars!
residlambda: resid lambda, lambda resid, residual lambda, residscale, resid scale, resid scalar, lambda for resid, \
residual scale, residscale init, residual scalar > resid lambda scalar scale
x0lambda: x0 lambda, lambda x0, x0 scalar, x0 weight, x0 scale, x0 skip scalar, x0 gate > x0 lambda scalar scale
"""

# What names mean together wherever they stand in one change, each before what it is made of.
TOGETHER = """
gatechannel: vegate channel, vegate input, gate ve channel
tying: sharing embedding unembedding, sharing embedding cproj
mlpratio: mlp expansion, mlp width
evalbatch: eval devicebatch, eval batch
attnscale: qk temperature, softmax temperature, qk scale
"""

# Abbreviations and spellings, put right wherever they stand.
ALIASES = {
    "attn": "attention",
    "emb": "embed",
    "embd": "embed",
    "embeddings": "embed",
    "ffn": "mlp",
    "ffw": "mlp",
    "ff": "mlp",
    "feedforward": "mlp",
    "param": "parameter",
    "params": "parameter",
    "doc": "document",
    "docs": "document",
    "tok": "token",
    "toks": "token",
    "iter": "iteration",
    "iters": "iteration",
    "opt": "optimizer",
    "optim": "optimizer",
    "optimiser": "optimizer",
    "resid": "residual",
    "proj": "projection",
    "seq": "sequence",
    "len": "length",
    "lm": "lm",
    "vec": "vector",
    "mult": "multiplier",
    "freq": "frequency",
    "freqs": "frequency",
    "grads": "gradient",
    "grad": "gradient",
    "norms": "norm",
    "ln": "layernorm",
    "avg": "average",
    "averaging": "average",
    "lin": "linear",
    "exp": "exponential",
    "dims": "dim",
    "hparam": "parameter",
    "cos": "cosine",
    "accum": "accumulation",
    "coef": "coefficient",
    "mom": "momentum",
    "coeff": "coefficient",
    "vals": "value",
    "val": "value",
    "reg": "regularization",
    "pos": "position",
    "adamw": "adam",
    "positional": "position",
    "rotary": "rope",
    "swish": "silu",
    "hyperparameter": "parameter",
    "num": "number",
    "regularisation": "regularization",
    "centre": "center",
    "learnt": "learned",
    "trainable": "learned",
    "learnable": "learned",
    "untied": "untie",
    "acts": "activation",
    "act": "activation",
    "sched": "schedule",
    "scheduler": "schedule",
    "normed": "norm",
    "qs": "query",
    "ks": "key",
    "vs": "value",
    "lrs": "lr",
    "weights": "weight",
    "wts": "weight",
}
# What is done, and the factor where the word names one. "drop" and "cut" are told apart by what they are done to.
VERBS = """
raise: increase, raise, bump, up, more, higher, larger, bigger, greater, longer, grow, boost, extend, lengthen, \
expand, strengthen, stronger, heavier, enlarge, extra, additional, amplify, upsize, increasing, another, loosen, \
looser, relax, upscale, crank, upward, hotter, increment, stretch, elevate, gain of, rise, taller, up to, scale up, \
go up, turn up, crank up, dial up, bump up, push up, step up, rises, climb, go higher, heighten, ramp
lower: decrease, reduce, lower, less, smaller, shrink, shorter, shorten, fewer, lighter, weaken, weaker, trim, \
reduction, downsize, diminish, tighten, tighter, cut, cutting, cut down, scale down, bring down, turn down, dial \
down, dial back, down, decrement, shave, soften, softer, downscale, lessen, slash, compress, go down, step down, \
gentler, cut back, lowering, milder, drop to, fall, falls, sink to, go lower, less often, smoother
add: add, insert, include, attach, inject, append, put in, adding, re add
use: use, using, enable, introduce, try, apply, implement, turn on, incorporate, put, employ, true, bring in, give, \
experiment with, try out, adopt, bring back, restore, reintroduce, re enable, reinstate
remove: remove, lose, loses, delete, disable, without, no, ablate, eliminate, turn off, get rid of, strip, omit, rip \
out, kill, off, none, false, exclude, prune, ditch, discard, take out, zero out, free, removal, stop using, drop, \
dropping, dropped, not, deactivate, switch off, unfreeze, take away, never, leave out, throw out, disabling, remove \
all, drop out of, taken out, remove altogether, no longer use, abandon, scrap, rid, stop, halt, cease, strip away, \
cut out, leave off, forgo, avoid
replace: replace, swap, switch, change, substitute, convert, exchange, migrate, move, trade, go from, replacing, \
swapping, switching, swap out, swap in, transition, go back, revert, return
set: set, make, tune, adjust, fix, have, keep, sweep
"""
FACTORS = {"halve": 0.5, "half": 0.5, "double": 2.0, "twice": 2.0, "triple": 3.0, "thrice": 3.0, "quadruple": 4.0,
           "quintuple": 5.0, "quarter": 0.25, "third": 1 / 3, "fifth": 0.2}  # fmt: skip
# A comparative that names what it compares.
COMPARATIVES = {"wider": ("raise", "width"), "widen": ("raise", "width"), "narrower": ("lower", "width"),
                "narrow": ("lower", "width"), "deeper": ("raise", "depth"), "deepen": ("raise", "depth"),
                "shallower": ("lower", "depth"), "untie": ("remove", "tying"), "untied": ("remove", "tying"),
                "untying": ("remove", "tying"),
                "biasless": ("remove", "bias"), "unfused": ("remove", "fused"), "ungated": ("remove", "gate"),
                "uncompiled": ("remove", "compile"), "eagerly": ("remove", "compile"),
                "eager": ("remove", "compile"), "unmasked": ("remove", "mask")}  # fmt: skip
NUMBER_WORDS = {
    "one": 1.0, "two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0, "six": 6.0, "seven": 7.0, "eight": 8.0, "nine": 9.0,
    "ten": 10.0, "eleven": 11.0, "twelve": 12.0, "thirteen": 13.0, "fourteen": 14.0, "fifteen": 15.0, "sixteen": 16.0,
    "twenty": 20.0, "thirty": 30.0, "fifty": 50.0, "hundred": 100.0, "thousand": 1000.0,
}  # fmt: skip
# Words that say nothing of an idea.
STOPWORDS = frozenset(
    """
entirely completely altogether fully outright on over onto upon not a an the of in for at its it is are be been
this that these those so then also just our my we
i per each as into between across via through slightly bit little much only very currently current new now version
let should would could can may might if whether which what who how does do did has had was were will there here
default previous old existing plain standard simple usual instead rather than while both during training train
trained phase period auxiliary tiny torch nn budget style like e.g eg i.e ie etc run experiment attempt idea whole
entire everything anything else allowed right just well fully f p fn func functional interface feat refactor perf
approx approximately about around roughly vs versus
""".split()  # noqa: SIM905
)
# After "to" or "for": what an idea is good for, not what it is (as words stand, or as their stems).
PURPOSES = frozenset(
    """
improve help get make speed save fit avoid match let allow give stabilize stabiliz free see check test encourag
prevent gain compensat fill finish recover better faster stability throughput memory quality efficiency simplicity
consistency fun comparison regularization saving capacity keep simplify simplifi optimiz improv encourage compensate
""".split()  # noqa: SIM905
)
# Words with which an explanation or a result begins.
REMARKS = frozenset(
    """
because since hoping hopefully so which inspired should see ala crashed crash oom hurts worse gives gave thought
diverged nan
""".split()  # noqa: SIM905
)
