/* CLIP's merges (worker/models/clip/README.md) as bytes of the program, so that one binary is
 * enough to read a checkpoint, which brings no vocabulary. */
    .section .rodata
    .global clip_merges
clip_merges:
    .incbin "worker/models/clip/merges.txt"
    .byte 0
    .section .note.GNU-stack, "", @progbits
