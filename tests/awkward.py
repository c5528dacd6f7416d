"""Cells that no paper has, for what the cells that come with bptt leave out."""

AWKWARD = {
    # names that the machine would choose for itself
    "taken names": """
input x: X, q_h: H
z_i[t] = W @ x[t]
dz_i[t] = tanh(z_i[t])
i[t] = sigmoid(z_i[t] + U @ h[t-1] + q_h[t])
direct_h[t] = i[t]*dz_i[t]
h[t] = tanh(U @ direct_h[t] + direct_h[t])*i[t]
""",
    "parts whose names are taken": """
a[t] = tanh(W @ concat(x[t], h[t-1], 1))
h[t] = a[t] + W_x*W_h*h[t-1]
""",
    "an input one step back": """
input x: H
h[t] = tanh(W @ x[t] + V @ x[t-1] + U @ h[t-1]) + x[t-1]
""",
    "a start, a constant, an input that has no time": """
input s: H per sequence
param A: (H, H), M: (D, D)
state h = h0, c = 1.0
B = A - A.T
i[t] = sigmoid(B @ h[t-1] + W @ x[t]*s)
c[t] = i[t]*c[t-1] + (1 - i[t])*s
h[t] = tanh(c[t]/sqrt(1 + dot(c[t], c[t])))*i[t]
y[t] = V @ h[t] + sum(M)*h0
output y, h
""",
    "gates that look at gates": """
i[t] = sigmoid(W_i @ x[t] + R_i @ h[t-1] + P_ii @ i[t-1] + P_fi @ f[t-1])
f[t] = sigmoid(W_f @ x[t] + R_f @ h[t-1] + P_if @ i[t-1] + P_ff @ f[t-1])
h[t] = f[t]*h[t-1] + i[t]*tanh(W_h @ x[t])
""",
    "exponential gates": """
state n = 1.0
a[t] = W_a @ x[t]
b[t] = W_b @ x[t]
z[t] = tanh(W_z @ x[t] + R_z @ h[t-1])
m[t] = max(logsigmoid(b[t]) + m[t-1], a[t])
i[t] = exp(a[t] - m[t])
f[t] = exp(logsigmoid(b[t]) + m[t-1] - m[t])
c[t] = f[t]*c[t-1] + i[t]*z[t]
n[t] = f[t]*n[t-1] + i[t]
h[t] = c[t]/n[t]
""",
    "leaky, coupled, scaled": """
param k: scalar
f[t] = sigmoid(W @ x[t] + h[t-1]/2)
c[t] = c[t-1] + 0.1*((1 - f[t])*(U @ h[t-1]) - k*c[t-1])
h[t] = h[t-1] - f[t]*h[t-1] + f[t]*tanh(c[t])
""",
    "kinks": "input x: H\ny[t] = relu(x[t] - h[t-1])*min(x[t], 0.3)\nh[t] = abs(y[t] - W @ h[t-1])",
    "a state that is an output of itself": "input x: H\nh[t] = 0.5*h[t-1] + x[t]",
    "a loss on a vector of logits": """
h[t] = tanh(W @ x[t] + U @ h[t-1])
readout:
o[t] = V @ h[t]
loss:
input y: K
L[t] = -dot(y[t], log_softmax(o[t])) + 0.01*dot(h[t], h[t])
""",
    "powers and roots": """
u[t] = W @ x[t] + U @ h[t-1]
v[t] = u[t]**3/sqrt(1 + u[t]**2)
h[t] = v[t]/(1 + mean(v[t]**2))**0.5
""",
}
