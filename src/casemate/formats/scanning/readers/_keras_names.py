"""Keras' own classes and functions, by their last name: what a plain model is made of.

Listed from the public names of Keras 3.15 (layers, losses, metrics, optimizers, initializers, regularizers,
constraints, activations, policies, quantizers, operations) and of Keras 2, less all that take code, files or addresses.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CLASSES", "FUNCTIONS"]

_CLASSES = """
AUC AWQConfig AWQDTypePolicy Abs AbsMaxQuantizer Absolute AbstractRNNCell Accuracy Activation
ActivityRegularization Adadelta Adafactor Adagrad Adam AdamW Adamax AdaptiveAveragePool AdaptiveAveragePooling1D
AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPool AdaptiveMaxPooling1D AdaptiveMaxPooling2D
AdaptiveMaxPooling3D Add AddLoss AddMetric AdditiveAttention AffineTransform All AllClose AlphaDropout Amax Amin
Angle Any Append Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax Argmin Argpartition Argsort
Array ArraySplit Attention AugMix AutoContrast Average AveragePool AveragePooling1D AveragePooling2D
AveragePooling3D AvgPool1D AvgPool2D AvgPool3D BatchNorm BatchNormalization BatchNormalizationV1
BatchNormalizationV2 Bidirectional BinaryAccuracy BinaryCrossentropy BinaryFocalCrossentropy BinaryIoU Bincount
BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo CDist CTC
CTCDecode CTCLoss Cast CategoricalAccuracy CategoricalCrossentropy CategoricalFocalCrossentropy
CategoricalGeneralizedCrossEntropy CategoricalHinge CategoryCrossing CategoryEncoding Cbrt Ceil Celu CenterCrop
Cholesky CholeskyInverse Circle Clip ClipByValue CompileLoss CompileMetrics Concatenate ConcordanceCorrelation
Conj Conjugate Constant Constraint ContrastLimitedAdaptiveHistogramEqualization Conv Conv1D Conv1DTranspose Conv2D
Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D ConvTranspose ConvertToTensor
Convolution1D Convolution1DTranspose Convolution2D Convolution2DTranspose Convolution3D Convolution3DTranspose
Copy Corrcoef Correlate Cos Cosh CosineDecay CosineDecayRestarts CosineSimilarity CountNonzero CropImages
Cropping1D Cropping2D Cropping3D Cross CuDNNGRU CuDNNLSTM Cumprod Cumsum CutMix DTypePolicy DTypePolicyMap Deg2rad
Dense DenseFeatures DepthToSpace DepthwiseConv DepthwiseConv1D DepthwiseConv2D Det Diag Diagflat Diagonal Dice
Diff Digitize Discretization DistillationLoss Distiller DistributedLossScaleOptimizer Divide DivideNoNan Dot
DotProductAttention Dropout Dsplit Dstack DynamicLossScale ELU Eig Eigh Einsum EinsumDense ElasticTransform Elu
Embedding EmptyLike Equal Equalization Erf Erfc Erfinv Exp Exp2 ExpandDims Expm1 ExponentialDecay ExtractPatches
ExtractSequences F1Score FBetaScore FFT FFT2 Fabs FalseNegatives FalsePositives FeatureDistillation FixedLossScale
Flatten Flip Fliplr Flipud Float8QuantizationConfig FloatDTypePolicy Floor FloorDivide Fmax Fmin Fmod Fold Ftrl
Full FullLike Function Functional GPTQConfig GPTQDTypePolicy GRU GRUCell GRUV2 GaussianBlur GaussianDropout
GaussianNoise Gcd Gelu Geomspace GetItem GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D GlobalMaxPooling1D
GlobalMaxPooling2D GlobalMaxPooling3D GlorotNormal GlorotUniform Glu Greater GreaterEqual GroupNormalization
GroupQueryAttention HSVToRGB HardShrink HardSigmoid HardSilu HardTanh HashedCrossing Hashing HeNormal HeUniform
Heaviside Highway Hinge Histogram Hsplit Hstack Huber Hypot I0 IFFT2 IRFFT ISTFT Identity IdentityInitializer Imag
InTopK Initializer Inner InputLayer InputSpec Int4DTypePolicy Int4QuantizationConfig Int8QuantizationConfig
IntegerLookup Inv InverseTimeDecay IoU IsIn Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal KLDivergence
KerasTensor Kron L1 L1L2 L2 LSTM LSTMCell LSTMV2 Lamb Layer LayerNorm LayerNormalization LayerScale Lcm Ldexp
LeakyReLU LeakyRelu LearningRateSchedule LecunNormal LecunUniform LeftShift Less LessEqual LinearCosineDecay
LinearModel Linspace Lion LocallyConnected1D LocallyConnected2D Log Log10 Log1p Log2 LogCosh LogCoshError
LogSigmoid LogSoftmax Logaddexp Logaddexp2 Logdet LogicalAnd LogicalNot LogicalOr LogicalXor LogitsDistillation
Logspace Logsumexp Loss LossFunctionWrapper LossScale LossScaleOptimizer LossScaleOptimizerV3 Lstsq LuFactor
MapCoordinates Masking Matmul MatrixRank Max MaxNorm MaxNumBoundingBoxes MaxPool MaxPool1D MaxPool2D MaxPool3D
MaxPooling1D MaxPooling2D MaxPooling3D Maximum MaxoutDense Mean MeanAbsoluteError MeanAbsolutePercentageError
MeanIoU MeanMetricWrapper MeanRelativeError MeanSquaredError MeanSquaredLogarithmicError MeanTensor Median
MelSpectrogram Merge Meshgrid Metric MetricsList Min MinMaxNorm Minimum MixUp Mod Model Moments Moveaxis
MultiHeadAttention MultiHot MultiOptimizer Multiply Muon Nadam NanToNum Nanargmax Nanargmin Nancumprod Nancumsum
Nanmax Nanmean Nanmedian Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter
NoisyLinearCosineDecay NonNeg Nonzero Norm Normalization Normalize NotEqual OneHot OneHotIoU OneHotMeanIoU Ones
OnesLike Operation Optimizer OptimizerMap OptimizerV2 Orthogonal OrthogonalInitializer OrthogonalRegularizer Outer
PReLU PSNR Pad PadImages PearsonCorrelation PeepholeLSTMCell Percentile Permute PerspectiveTransform
PiecewiseConstantDecay Pinv Pipeline Poisson Polar Policy PolicyV1 PolynomialDecay Power Precision
PrecisionAtRecall Prod Ptp Qr Quantile QuantizationConfig QuantizedDTypePolicy QuantizedFloat8DTypePolicy
Quantizer R2Score RFFT RGBToGrayscale RGBToHSV RMSNorm RMSNormalization RMSprop RNN Rad2deg RandAugment
RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform
RandomErasing RandomFlip RandomFourierFeatures RandomGaussianBlur RandomGrayscale RandomHeight RandomHue
RandomInvert RandomNormal RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness
RandomShear RandomTranslation RandomUniform RandomWidth RandomZoom Ravel ReLU Real Rearrange Recall
RecallAtPrecision RecallAtThreshold Reciprocal Regularizer Relu Relu6 Repeat RepeatVector Rescaling Reshape Resize
Resizing ReversibleEmbedding RightShift Roll RootMeanSquaredError Rot90 Round Rsqrt SGD SSIM STFT STFTInitializer
STFTSpectrogram SVD SaturateCast ScaleAndTranslate Scatter ScatterUpdate ScheduleFreeAdamW SearchSorted
SeedGenerator SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum Select Selu SensitivityAtSpecificity
SensitivitySpecificityBase SeparableConv SeparableConv1D SeparableConv2D SeparableConvolution1D
SeparableConvolution2D SequenceFeatures Sequential Sigmoid Sign Signbit Silu SimpleRNN SimpleRNNCell Sin Sinc Sinh
Size Slice SliceUpdate Slogdet SobelEdges SoftShrink Softmax Softplus Softsign Solarization Solve SolveTriangular
Sort SpaceToDepth SparseCategoricalAccuracy SparseCategoricalCrossentropy SparsePlus SparseSigmoid
SparseTopKCategoricalAccuracy Sparsemax SpatialDropout1D SpatialDropout2D SpatialDropout3D
SpecificityAtSensitivity SpectralNormalization Split Sqrt Square SquaredHinge Squareplus Squeeze Stack
StackedRNNCells Std StopGradient StringLookup Subtract Sum SumOverBatchSize SumOverBatchSizeMetricWrapper Swapaxes
SyncBatchNormalization TFOptimizer Take TakeAlongAxis Tan Tanh TanhShrink Tensordot TextVectorization Threshold
ThresholdedReLU Tile TimeDistributed Tokenizer TopK TopKCategoricalAccuracy Trace Transpose Trapezoid Tril Triu
TrueDivide TrueNegatives TruePositives Trunc TruncatedNormal Tversky Unfold Unique UnitNorm UnitNormalization
UnravelIndex Unstack UpSampling1D UpSampling2D UpSampling3D Vander Var Variable VarianceScaling Vdot View
ViewAsComplex ViewAsReal Vsplit Vstack WarmUp Where WideDeepModel Wrapper ZeroPadding1D ZeroPadding2D
ZeroPadding3D Zeros ZerosLike
"""
CLASSES: Final = frozenset(_CLASSES.split())  # made with `from_config`

_FUNCTIONS = """
Identity abs abs_max_quantize abs_max_quantize_grouped_with_zero_point absolute acc adaptive_average_pool
adaptive_max_pool add affine_transform all allclose amax amin angle any append arange arccos arccosh arcsin
arcsinh arctan arctan2 arctanh argmax argmin argpartition argsort array array_split average average_pool bartlett
batch_normalization bce beta binary_accuracy binary_crossentropy binary_focal_crossentropy bincount binomial
bitwise_and bitwise_invert bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor blackman
broadcast_to cast categorical categorical_accuracy categorical_crossentropy categorical_focal_crossentropy
categorical_generalized_cross_entropy categorical_hinge cbrt cdist ceil celu cholesky cholesky_inverse circle clip
compute_float8_amax_history compute_float8_scale concatenate concordance_correlation conj conjugate constant conv
conv_transpose convert_to_tensor copy corrcoef correlate cos cosh cosine cosine_similarity count_nonzero
crop_images cross ctc ctc_decode ctc_loss cumprod cumsum deg2rad depth_to_space depthwise_conv det diag diagflat
diagonal dice diff digitize divide divide_no_nan dot dot_product_attention dropout dsplit dstack dtype eig eigh
einsum elastic_transform elu empty empty_like equal erf erfc erfinv exp exp2 expand_dims expm1 exponential
extract_patches extract_patches_3d extract_sequences eye fabs fake_quant_with_min_max_vars fft fft2 flip fliplr
flipud floor floor_divide fmax fmin fmod fold full full_like gamma gaussian_blur gcd gelu geomspace get_item
glorot glorot_normal glorot_uniform glu greater greater_equal hamming hanning hard_shrink hard_sigmoid hard_silu
hard_swish hard_tanh he_normal he_uniform heaviside hinge histogram hsplit hstack hsv_to_rgb huber hypot i0
identity ifft2 imag in_top_k inner inv irfft is_tensor isclose isfinite isin isinf isnan isneginf isposinf isreal
istft kaiser kl_divergence kld kron kullback_leibler_divergence l1 l1_l2 l2 layer_normalization lcm ldexp
leaky_relu lecun lecun_normal lecun_uniform left_shift less less_equal linear linspace log log10 log1p log2
log_cosh log_sigmoid log_softmax logaddexp logaddexp2 logcosh logdet logical_and logical_not logical_or
logical_xor logspace logsumexp lstsq lu_factor mae map_coordinates mape matmul matrix_rank max max_norm max_pool
maximum mean mean_absolute_error mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error
median meshgrid min min_max_norm minimum mish mod moments moveaxis mse msle multi_hot multiply nan_to_num
nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian nanmin nanpercentile nanprod nanquantile nanstd
nansum nanvar ndim negative nextafter non_neg nonzero norm normal normalize not_equal one_hot ones ones_like
orthogonal orthogonal_regularizer outer pack_int4 pad pad_images pearson_correlation percentile
perspective_transform pinv poisson polar power prod psnr ptp qr quantile quantize_and_dequantize rad2deg randint
random_normal random_uniform ravel real rearrange reciprocal relu relu6 relu_v2 repeat reshape resize rfft
rgb_to_grayscale rgb_to_hsv right_shift rms_normalization roll rot90 round rsqrt saturate_cast scale_and_translate
scatter scatter_update searchsorted segment_max segment_min segment_prod segment_sum select selu separable_conv
shape shuffle sigmoid sign signbit silu sin sinc sinh size slice slice_update slogdet sobel_edges soft_shrink
softmax softmax_v2 softplus softsign solve solve_triangular sort space_to_depth sparse_categorical_accuracy
sparse_categorical_crossentropy sparse_plus sparse_sigmoid sparse_top_k_categorical_accuracy sparsemax split sqrt
square squared_hinge squareplus squeeze ssim stack std stft stop_gradient subtract sum svd swapaxes swish take
take_along_axis tan tanh tanh_shrink tensordot threshold tile top_k top_k_categorical_accuracy trace transpose
trapezoid tri tril triu true_divide trunc truncated_normal tversky unfold uniform unique unit_norm unpack_int4
unravel_index unstack vander var variance_scaling vdot view view_as_complex view_as_real vsplit vstack where zeros
zeros_like
"""
FUNCTIONS: Final = frozenset(_FUNCTIONS.split())  # referred to by name
